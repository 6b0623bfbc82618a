// A llama-shaped decoder over a paged cache: one forward pass a step, for rows of any number of sequences.

#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "blocks.h"
#include "kernels.h"
#include "panels.h"
#include "pool.h"

namespace smallpress {

struct Config {
    int64_t dim, n_layers, n_heads, n_kv_heads, head_dim, inter_dim, vocab_size;
    float norm_eps;
    double rope_theta;
    bool tied_head;
};

// Tokens of one step. Row n is token ids[n] at positions[n] of the sequence whose pages begin at tables[n].
struct Rows {
    int64_t N;
    const int64_t* ids;
    const int64_t* positions;
    const int64_t* const* tables;
};

struct Draw {
    float temperature, top_p, min_p;  // temperature 0 is greedy
    int64_t top_k;                    // 0 is all
    double uniform;                   // in [0, 1)
};

struct Drawn {
    int64_t id;
    double logprob;  // under softmax(logits / temperature) before filters, temperature 1 where greedy
};

class Model {
public:
    Model(const Config& config, int64_t n_pages, int64_t page_size, int n_threads, const std::string& kernels_name);

    // Takes an [n_rows, n_columns] weight or an [n_rows] vector (n_columns 0) by its name in the torch model. Throws
    // std::invalid_argument for a name or a shape that is not the model's, std::overflow_error for NaN or infinity.
    void set(const std::string& name, const float* values, int64_t n_rows, int64_t n_columns, Coding coding);

    // Takes a weight as a file holds it, `row_bytes` bytes of blocks a row, in the coding the format becomes.
    void set_blocks(const std::string& name, const BlockFormat& format, const uint8_t* rows, int64_t n_rows,
                    int64_t row_bytes);

    void copy_page(int64_t source, int64_t target);

    // A page's keys and values of all layers as plain bytes, to be kept elsewhere and brought back: they mean the same
    // to every model of this config, page size and kind of cache.
    int64_t page_bytes() const {
        return config_.n_layers * 2 * page_entries() * static_cast<int64_t>(sizeof(uint16_t));
    }
    void read_page(int64_t page, uint8_t* to) const;
    void write_page(int64_t page, const uint8_t* from);

    // The forward pass; logits of the rows named are kept until the next one. All keys and values are written before
    // any row of the same layer attends.
    void forward(const Rows& rows, const int64_t* logit_rows, int64_t n_logit_rows);

    const float* logits() const { return logits_.get(); }
    int64_t n_logit_rows() const { return n_logit_rows_; }

    // One token for each draw, from the logits of row_of[i]. An id of -1: that row's logits are not finite.
    std::vector<Drawn> sample(const std::vector<int64_t>& row_of, const std::vector<Draw>& draws);

    // Forget all keys and values, and give their memory back.
    void reset();

    // Of all weights that a token is multiplied by, as they lie in memory.
    int64_t weight_bytes() const;

    const Config& config() const { return config_; }
    int64_t n_pages() const { return n_pages_; }
    int64_t page_size() const { return page_size_; }
    const char* kernels_name() const { return k_.name; }

private:
    struct Layer {
        Panels q, k, v, o, gate, up, down;
        Buffer<float> attn_norm, mlp_norm, qkv_bias, o_bias, gate_up_bias, down_bias;  // no bias: empty
    };
    // Where a weight goes: a matrix, or `n_rows` numbers of a vector of `size` from `first` on.
    struct Place {
        Panels* matrix = nullptr;
        Buffer<float>* vector = nullptr;
        int64_t n_rows = 0, n_columns = 0, size = 0, first = 0;
    };
    // A weight whose product stands from `column` on.
    struct Part {
        const Panels* weight;
        int64_t column = 0;
    };

    Place find(const std::string& name, int64_t n_rows, int64_t n_columns);
    // Calls pack(panel, first row, how many) for every panel of `to`, made anew where its coding is another.
    template <typename Pack>
    void fill(const std::string& name, Panels& to, Coding coding, const Place& place, Pack pack);
    void require_weights() const;
    // The products of what was quantized last with weights of the same K.
    void product(std::initializer_list<Part> parts, int64_t M, float* out, int64_t stride, Store store);
    // Row `row` of the factors of the next product.
    void take(const float* x, int64_t n, int64_t row);
    void normalize(const float* x, const Buffer<float>& weight, int64_t M);
    void place(const Layer& layer, int64_t index, const Rows& rows);
    // Rows that follow one another in a sequence, a few at a time.
    struct Run {
        int64_t first, n_rows;
    };
    std::vector<Run> runs(const Rows& rows) const;
    void attend(int64_t layer, const Rows& rows, const std::vector<Run>& runs);
    uint16_t* keys(int64_t layer, int64_t page, int64_t kv_head) const;
    uint16_t* values(int64_t layer, int64_t page, int64_t kv_head) const;
    int64_t q_dim() const { return config_.n_heads * config_.head_dim; }
    int64_t kv_dim() const { return config_.n_kv_heads * config_.head_dim; }
    // Where a product that shares rows with others begins: at a panel.
    int64_t k_row() const { return round_up(q_dim(), PANEL); }
    int64_t v_row() const { return k_row() + round_up(kv_dim(), PANEL); }
    int64_t qkv_width() const { return v_row() + kv_dim(); }
    int64_t up_row() const { return round_up(config_.inter_dim, PANEL); }
    int64_t gate_up_width() const { return up_row() + config_.inter_dim; }
    int64_t head_entries() const { return config_.head_dim * round_up(page_size_, LANES); }
    int64_t page_entries() const { return config_.n_kv_heads * head_entries(); }

    const Config config_;
    const int64_t n_pages_, page_size_;
    const Kernels& k_;
    Pool pool_;
    Panels embed_, head_;
    Buffer<float> norm_;
    std::vector<double> turns_;  // [head_dim / 2], angle of rotation a position
    std::vector<Layer> layers_;
    Buffer<uint16_t> cache_;  // [n_layers, 2, n_pages, n_kv_heads, head_entries]

    bool any_bf16_ = false, any_quantized_ = false;  // among the weights

    // Of the step under way.
    Activations act_;
    Buffer<float> x_, qkv_, mixed_, wide_, picked_, cos_, sin_, logits_;
    std::vector<Buffer<float>> scratch_;  // one a thread, as the next three
    std::vector<Buffer<uint16_t>> narrow_;
    std::vector<std::vector<const uint16_t*>> key_pages_, value_pages_, chunks_;
    int64_t n_logit_rows_ = 0;
};

}  // namespace smallpress
