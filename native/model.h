// A decoder over a paged cache: one forward pass a step, for rows of any number of sequences.

#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "blocks.h"
#include "config.h"
#include "kernels.h"
#include "kv_page.h"
#include "panels.h"
#include "pool.h"
#include "routing.h"

namespace smallpress {

// Tokens of one step. Row n is token ids[n] at positions[n] of the sequence whose pages begin at tables[n].
struct Rows {
    int64_t N;
    const int64_t* ids;
    const int64_t* positions;
    const int64_t* const* tables;
    const int64_t* adapters = nullptr;  // the number of each row's adapter, 0: none; nullptr: no row has one
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
    // `eight_bit_cache`: keys and values as codes of 8 bits; throws std::invalid_argument where they are latents.
    Model(const Config& config, int64_t n_pages, int64_t page_size, int n_threads, const std::string& kernels_name,
          bool eight_bit_cache = false);

    // Takes an [n_rows, n_columns] weight or an [n_rows] vector (n_columns 0) by its name in the torch model; of a
    // stack of matrices the rows of all. Throws std::invalid_argument for a name or a shape that is not the model's,
    // std::overflow_error for NaN or infinity.
    void set(const std::string& name, const float* values, int64_t n_rows, int64_t n_columns, Coding coding);

    // Takes a weight as a file holds it, `row_bytes` bytes of blocks a row, in the coding the format becomes. Not those
    // that are taken apart or kept in fp32 (`kv_b`, routers).
    void set_blocks(const std::string& name, const BlockFormat& format, const uint8_t* rows, int64_t n_rows,
                    int64_t row_bytes);

    // One more low-rank adapter, which changes nothing yet; returns its number, from 1 on.
    int64_t add_adapter();

    // What the adapter adds to a linear layer, by its name in the torch model ("layers.0.attn.q"): b a x, where a is
    // [rank, n_in] and b, in which the scale is, [n_out, rank]. Throws std::invalid_argument for a layer that there is
    // none of in these shapes, or that is run in another form (of latent attention, of experts); as `set` else.
    void set_low_rank(int64_t adapter, const std::string& name, const float* a, const float* b, int64_t rank,
                      int64_t n_in, int64_t n_out);

    int64_t n_adapters() const { return static_cast<int64_t>(adapters_.size()); }

    void copy_page(int64_t source, int64_t target);

    // A page's keys and values of all layers as plain bytes, to be kept elsewhere and brought back: they mean the same
    // to every model of this config, page size and kind of cache.
    int64_t page_bytes() const { return n_page_parts() * part_bytes(); }
    void read_page(int64_t page, uint8_t* to) const;
    void write_page(int64_t page, const uint8_t* from);

    // The forward pass; logits of the rows named are kept until the next one. All keys and values are written before
    // any row of the same layer attends.
    void forward(const Rows& rows, const int64_t* logit_rows, int64_t n_logit_rows);

    // Module k of multi-token prediction over tokens at their own positions. before[n]: what was hidden() of the token
    // before row n, of the decoder for k = 0, else of module k - 1. Logits are of the token after each row's; where
    // none are asked for, the last ones are kept.
    void predict(int64_t k, const Rows& rows, const float* before, const int64_t* logit_rows, int64_t n_logit_rows);

    // The last pass' rows after its norm, [N, dim]; where the model has modules.
    const float* hidden() const { return hidden_.get(); }
    int64_t n_hidden() const { return n_hidden_; }

    const float* logits() const { return logits_.get(); }
    int64_t n_logit_rows() const { return n_logit_rows_; }

    // One token for each draw, from the logits of row_of[i]. An id of -1: that row's logits are not finite.
    std::vector<Drawn> sample(const std::vector<int64_t>& row_of, const std::vector<Draw>& draws);

    // Forget all keys and values, and give their memory back.
    void reset();

    // Of all weights that a token is multiplied by, as they lie in memory; of experts, those that it is sent to.
    int64_t weight_bytes() const;

    int64_t cache_bytes() const { return cache_.size(); }

    const Config& config() const { return config_; }
    int64_t n_pages() const { return n_pages_; }
    int64_t page_size() const { return page_size_; }
    const char* kernels_name() const { return k_.name; }

private:
    struct Layer {
        Panels q, k, v, o, gate, up, down;  // q: of latent attention `q_b`, where there is one; gate, up, down: shared
        Buffer<float> attn_norm, mlp_norm, qkv_bias, o_bias, gate_up_bias, down_bias;  // no bias: empty
        Buffer<float> attn_post_norm, mlp_post_norm, q_norm, k_norm;                   // empty, too
        // Latent attention: `k_up` are the keys' rows of `kv_b`, turned: for each head [kv_rank, nope_dim]; `v_up` the
        // values' as they are.
        // `k_plain`: the keys' too.
        Panels q_a, kv_a, k_up, v_up, k_plain;
        Buffer<float> q_a_norm, kv_a_norm, q_a_bias, kv_a_bias;
        // Experts: stacks.
        Buffer<float> router, expert_bias;
        Panels experts_gate, experts_up, experts_down;
        // A module's own: before and after its block.
        Buffer<float> embed_norm, hidden_norm, norm;
        Panels proj;
    };
    // What an adapter adds to one product; a [rank, n_in], b turned, [rank, n_out], their rows filled up to LANES.
    // bf16.
    struct LowRank {
        int64_t rank = 0, n_in = 0, n_out = 0;
        Buffer<uint16_t> a, b;
    };
    enum { Q, K, V, O, GATE, UP, DOWN, N_ADAPTED };
    static constexpr Panels Layer::* ADAPTED[N_ADAPTED] = {&Layer::q,    &Layer::k,  &Layer::v,   &Layer::o,
                                                           &Layer::gate, &Layer::up, &Layer::down};
    struct Adapter {
        std::vector<std::array<LowRank, N_ADAPTED>> layers;
    };
    // Products of one layer that have the same x, `n` of the enumeration from `first` on; at most three.
    struct Adapted {
        int64_t layer = 0;
        int first = 0, n = 0;
    };
    // Where a weight goes: a matrix or a stack of them, each of which begins at a panel; or some of the `whole` numbers
    // of a vector, from `first` on. `apart`: to both parts that `kv_b` is taken into.
    struct Place {
        Panels* matrix = nullptr;
        Buffer<float>* vector = nullptr;
        int64_t n_rows = 0, n_columns = 0, n_stacked = 1, whole = 0, first = 0;
        Layer* apart = nullptr;
        bool is_one() const { return matrix || vector; }
    };
    static Place matrix(Panels& to, int64_t n_rows, int64_t n_columns, int64_t n_stacked = 1) {
        return {&to, nullptr, n_rows, n_columns, n_stacked, 0, 0, nullptr};
    }
    static Place part(Buffer<float>& of, int64_t whole, int64_t first, int64_t n_rows, int64_t n_columns = 0) {
        return {nullptr, &of, n_rows, n_columns, 1, whole, first, nullptr};
    }
    static Place vector(Buffer<float>& to, int64_t n) { return part(to, n, 0, n); }
    // A weight whose product stands from `column` on.
    struct Part {
        const Panels* weight;
        int64_t column = 0;
    };

    // Rows that follow one another in a sequence, a few at a time.
    struct Run {
        int64_t first, n_rows;
    };
    using Pages = std::vector<const uint8_t*>;

    // One product of many that are done together: activations, a weight, where it goes.
    struct Job {
        Activations x;
        int64_t M;
        Panels weight;
        float* out;
        int64_t stride;
    };

    Place find(const std::string& name, int64_t n_rows, int64_t n_columns);
    Place find_in_block(int64_t index, const std::string& rest);
    Place find_in_module(Layer& layer, const std::string& rest);
    Place find_attention(Layer& layer, const std::string& rest);
    Place find_latent(Layer& layer, const std::string& rest);
    Place find_feed_forward(Layer& layer, int64_t index, std::string rest);
    // Calls pack(panel, first row, how many) for every panel of `to`, made anew where its coding is another.
    template <typename Pack>
    void fill(const std::string& name, Panels& to, Coding coding, const Place& place, Pack pack);
    void take_apart(const std::string& name, const float* values, Coding coding, const Place& place);
    // Every matrix of a layer, and what share of it a token is multiplied by.
    std::vector<std::pair<const Panels*, double>> matrices(int64_t index) const;
    void require_weights() const;
    // The products of what was quantized last with weights of the same K.
    void product(std::initializer_list<Part> parts, int64_t M, float* out, int64_t stride, Store store);
    // Row `row` of the factors of a product.
    void take(const float* x, int64_t n, const Activations& to, int64_t row) const;
    // `products`: what the rows go into; `kept`: where they go besides.
    void normalize(const float* x, const Buffer<float>& weight, int64_t M, Adapted products, float* kept = nullptr);
    void run(const std::vector<Job>& jobs);
    // Of the step under way: who asks for which adapter, A x of row n for each of the products, and + B A x to them.
    void choose_adapters(const int64_t* adapters, int64_t N);
    const LowRank* low_rank(Adapted products, int64_t n) const;
    void low_rank_in(Adapted products, int64_t n, const float* x);
    void low_rank_out(Adapted products, int64_t n, std::initializer_list<float*> outs);
    // Adds a product of what was quantized last to the stream or, where that is normed first, to a branch of it.
    void join(Adapted product, const Buffer<float>& bias, const Buffer<float>& post_norm, int64_t N);
    float* branch(const Buffer<float>& post_norm) const { return (post_norm.size() ? branch_ : x_).get(); }
    void end_branch(const Buffer<float>& post_norm, int64_t N);
    void feed_forward(const Layer& layer, int64_t index, int64_t N);
    void dense(const Layer& layer, int64_t index, int64_t N);
    void experts(const Layer& layer, int64_t index, int64_t N);
    void embed(const Rows& rows);
    void run_block(int64_t index, const Rows& rows, const std::vector<Run>& together);
    void project(const Layer& module, const float* before, int64_t N);
    void keep_hidden(const Buffer<float>& norm, int64_t N);
    void make_logits(const Buffer<float>& norm, const int64_t* rows, int64_t n_rows);
    void rotate_head(float* head, int64_t rope, int64_t n, int64_t D, int thread);
    void place(const Layer& layer, int64_t index, const Rows& rows);
    std::vector<Run> runs(const Rows& rows) const;
    Attention attention(int64_t layer, const Rows& rows, const Run& run, int64_t head, Pages& keys_of,
                        Pages& values_of);
    void attend(int64_t layer, const Rows& rows, const std::vector<Run>& runs);
    bool attend_in_parts(int64_t layer, const Rows& rows, const std::vector<Run>& runs);
    void latent_attention(const Layer& layer, int64_t index, const Rows& rows);
    void place_latents(const Layer& layer, int64_t index, const Rows& rows);
    void absorb(const Layer& layer, int64_t index, int64_t first, int64_t n);
    void attend_latents(int64_t layer, const Rows& rows, int64_t first, int64_t n);
    void unfold(const Layer& layer, int64_t first, int64_t n);
    std::vector<Run> whole_runs(const Rows& rows) const;
    bool pays_plain(int64_t n, int64_t before) const;
    void attend_plain(const Layer& layer, int64_t index, const Rows& rows, const Run& run);
    uint16_t* latents(int64_t layer, int64_t page) const;
    uint8_t* keys(int64_t layer, int64_t page, int64_t kv_head) const;
    uint8_t* values(int64_t layer, int64_t page, int64_t kv_head) const;
    int64_t q_dim() const {  // of latent attention, head_dim is nope_dim + rope_dim
        return config_.n_heads * config_.head_dim;
    }
    int64_t kv_dim() const { return config_.n_kv_heads * config_.head_dim; }
    // Where a product that shares rows with others begins: at a panel.
    int64_t k_row() const { return round_up(q_dim(), PANEL); }
    int64_t v_row() const { return k_row() + round_up(kv_dim(), PANEL); }
    int64_t qkv_width() const { return v_row() + kv_dim(); }
    // What attention gives of a token, before `o`.
    int64_t mixed_dim() const { return config_.latent ? config_.n_heads * config_.latent->v_dim : q_dim(); }
    // Of a dense or shared feed-forward of that width.
    static int64_t up_row(int64_t inter) { return round_up(inter, PANEL); }
    static int64_t gate_up_width(int64_t inter) { return up_row(inter) + inter; }
    int64_t dense_dim(int64_t index) const;
    auto gate_of(int64_t index) const { return config_.layers[index].gelu ? k_.geglu : k_.swiglu; }
    // What a page has in each layer lies apart: latents, or keys and values.
    int64_t n_page_parts() const { return config_.n_blocks() * (config_.latent ? 1 : 2); }
    int64_t part_bytes() const {
        return config_.latent ? page_size_ * latent_width() * static_cast<int64_t>(sizeof(uint16_t))
                              : config_.n_kv_heads * kv_page_.n_bytes();
    }
    uint8_t* page_part(int64_t part, int64_t page) const;
    // Of latent attention's first product: where the latents begin, after the queries or what they are made of.
    int64_t kv_column() const { return round_up(config_.latent->q_rank ? config_.latent->q_rank : q_dim(), PANEL); }
    int64_t down_width() const { return kv_column() + config_.latent->kv_rank + config_.latent->rope_dim; }
    int64_t n_groups() const { return (config_.n_heads + LATENT_HEADS - 1) / LATENT_HEADS; }
    // Of a token's row in the cache: latent and rotated key, which are read in pairs.
    int64_t latent_width() const { return round_up(config_.latent->kv_rank + config_.latent->rope_dim, 2); }

    const Config config_;
    const int64_t n_pages_, page_size_;
    const KVPage kv_page_;
    const Kernels& k_;
    Pool pool_;
    Panels embed_, head_;
    Buffer<float> norm_;
    std::vector<Layer> layers_;  // and modules
    std::vector<Adapter> adapters_;
    int64_t widest_ = 0;     // numbers that an adapter makes of a row at most, before they are widened again
    Buffer<uint8_t> cache_;  // [n_blocks, 2, n_pages, n_kv_heads, a page of a head], or [n_blocks, n_pages, page_size,
                             // latent_width] in bf16

    Codings in_layers_, in_head_;  // of the weights

    // Of the step under way.
    Activations act_;
    Buffer<float> x_, qkv_, mixed_, wide_, picked_, logits_, branch_;
    Buffer<float> cos_, sin_;  // [N, ropes, rope_dim / 2]
    Activations gathered_;     // rows by expert, or by head
    Buffer<float> normed_, expert_wide_, expert_out_;
    std::vector<Choice> choices_;              // [N, n_active]
    Buffer<float> q_, folded_, spans_, made_;  // of latent attention
    Buffer<uint16_t> queries_;
    std::vector<Buffer<float>> scratch_;  // one a thread, as the next four
    std::vector<Buffer<uint16_t>> narrow_;
    std::vector<Pages> key_pages_, value_pages_, chunks_;
    std::vector<std::vector<const uint16_t*>> latent_pages_;
    Buffer<float> part_scores_;  // of rows that are shared out
    Buffer<uint16_t> part_pairs_;
    std::vector<Pages> part_keys_, part_values_;
    const int64_t* asked_ = nullptr;  // the rows' adapters
    Buffer<float> narrow_rows_;       // [N, widest]
    Buffer<float> hidden_, pairs_;    // of modules
    int64_t n_logit_rows_ = 0, n_hidden_ = 0;
};

}  // namespace smallpress
