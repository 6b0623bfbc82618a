#include "model.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <numeric>
#include <stdexcept>

#include "rope.h"

namespace smallpress {
namespace {

constexpr int64_t TOGETHER = 64;  // rows of a sequence that attend in one piece of work: a few full tiles

void add_bias(float* row, const Buffer<float>& bias) {
    for (size_t i = 0; i < bias.size(); i++) row[i] += bias[i];
}

}  // namespace

Model::Model(const Config& config, int64_t n_pages, int64_t page_size, int n_threads, const std::string& kernels_name,
             bool eight_bit_cache)
    : config_(config),
      n_pages_(n_pages),
      page_size_(page_size),
      kv_page_{config.head_dim, page_size, eight_bit_cache},
      k_(kernels(kernels_name)),
      pool_(n_threads) {
    if (config.n_heads % config.n_kv_heads || config.rope_dim() % 2)
        throw std::invalid_argument("n_heads must be a multiple of n_kv_heads, and what is rotated even");
    for (const Rope& rope : config.ropes)
        if (static_cast<int64_t>(rope.turns.size()) * 2 != config.rope_dim())
            throw std::invalid_argument("a rope has one turn for each pair");
    for (const LayerKind& layer : config.layers)
        if (layer.rope < 0 || layer.rope >= static_cast<int64_t>(config.ropes.size()) || layer.window < 0 ||
            layer.inter_dim < 0 || (layer.inter_dim == 0 && !config.experts))
            throw std::invalid_argument("a layer is of no kind there is");
    if (config.latent && config.latent->nope_dim + config.latent->rope_dim != config.head_dim)
        throw std::invalid_argument("head_dim of latent attention is nope_dim + rope_dim");
    if (config.latent && eight_bit_cache) throw std::invalid_argument("latents are kept in bf16");
    norm_ = Buffer<float>(config.dim);
    if (config.n_modules < 0 || config.n_layers() < 1)
        throw std::invalid_argument("a model has layers besides its modules");
    layers_.resize(config.n_blocks());
    scratch_.resize(pool_.n_threads());
    key_pages_.resize(pool_.n_threads());
    latent_pages_.resize(pool_.n_threads());
    value_pages_.resize(pool_.n_threads());
    narrow_.resize(pool_.n_threads());
    chunks_.resize(pool_.n_threads());
    reset();
}

void Model::reset() {
    cache_ = Buffer<uint8_t>();  // the old memory first
    cache_ = Buffer<uint8_t>(n_page_parts() * n_pages_ * part_bytes());
}

uint8_t* Model::keys(int64_t layer, int64_t page, int64_t kv_head) const {
    return page_part(2 * layer, page) + kv_head * kv_page_.n_bytes();
}

uint8_t* Model::values(int64_t layer, int64_t page, int64_t kv_head) const {
    return keys(layer, n_pages_ + page, kv_head);
}

uint8_t* Model::page_part(int64_t part, int64_t page) const {
    return cache_.get() + (part * n_pages_ + page) * part_bytes();
}

void Model::copy_page(int64_t source, int64_t target) {
    for (int64_t part = 0; part < n_page_parts(); part++)
        std::memcpy(page_part(part, target), page_part(part, source), part_bytes());
}

void Model::read_page(int64_t page, uint8_t* to) const {
    for (int64_t part = 0; part < n_page_parts(); part++, to += part_bytes())
        std::memcpy(to, page_part(part, page), part_bytes());
}

void Model::write_page(int64_t page, const uint8_t* from) {
    for (int64_t part = 0; part < n_page_parts(); part++, from += part_bytes())
        std::memcpy(page_part(part, page), from, part_bytes());
}

void Model::product(std::initializer_list<Part> parts, int64_t M, float* out, int64_t stride, Store store) {
    int64_t n_panels = 0;
    for (const Part& part : parts) n_panels += part.weight->n_panels();
    pool_.split(n_panels, 1, [&](int, int64_t begin, int64_t end) {
        for (const Part& part : parts) {
            const Panels& w = *part.weight;
            const int64_t last = std::min(end, w.n_panels());
            if (begin < last)
                k_.product(act_, M, w, std::max<int64_t>(begin, 0), last, out + part.column, stride, store);
            begin -= w.n_panels();
            end -= w.n_panels();
        }
    });
}

void Model::take(const float* x, int64_t n, const Activations& to, int64_t row) const {
    if (to.meets.eight_bits || to.meets.four_bits) k_.quantize(x, n, to, row);
    if (to.meets.bf16) k_.narrow(x, n, to, row);
}

void Model::normalize(const float* x, const Buffer<float>& weight, int64_t M, Adapted products, float* kept) {
    const int64_t dim = config_.dim;
    act_.reserve(M, dim);
    pool_.split(M, 1, [&](int thread, int64_t begin, int64_t end) {
        scratch_[thread].reserve(dim);
        for (int64_t row = begin; row < end; row++) {
            float* normed = kept ? kept + row * dim : scratch_[thread].get();
            k_.rms_norm(x + row * dim, weight.get(), dim, config_.norm_eps, normed);
            take(normed, dim, act_, row);
            if (products.n) low_rank_in(products, row, normed);
        }
    });
}

void Model::rotate_head(float* head, int64_t rope, int64_t n, int64_t D, int thread) {
    const int64_t from = (n * config_.ropes.size() + rope) * (D / 2);
    scratch_[thread].reserve(D);
    rotate(head, &cos_[from], &sin_[from], D, config_.interleaved, scratch_[thread].get());
}

// Biases, norms, rotation, and keys and values into their pages.
void Model::place(const Layer& layer, int64_t index, const Rows& rows) {
    const int64_t D = config_.head_dim, rope = config_.layers[index].rope;
    const float gain = config_.score_scale * std::sqrt(static_cast<float>(D));  // what attend() has too little
    auto turn = [&](float* head, const Buffer<float>& norm, int64_t n, int thread) {
        auto normalize = [&](HeadNorm when) {
            if (config_.head_norm == when) k_.rms_norm(head, norm.get(), D, config_.norm_eps, head);
        };
        normalize(HeadNorm::BEFORE_ROPE);
        rotate_head(head, rope, n, D, thread);
        normalize(HeadNorm::AFTER_ROPE);
    };
    pool_.split(rows.N, 1, [&](int thread, int64_t begin, int64_t end) {
        Buffer<uint16_t>& narrow = narrow_[thread];
        narrow.reserve(D);
        for (int64_t n = begin; n < end; n++) {
            float* row = qkv_.get() + n * qkv_width();
            add_bias(row, layer.qkv_bias);
            low_rank_out({index, Q, 3}, n, {row, row + k_row(), row + v_row()});
            for (int64_t h = 0; h < config_.n_heads; h++) turn(row + h * D, layer.q_norm, n, thread);
            for (int64_t i = 0; config_.score_scale != 0.0f && i < q_dim(); i++) row[i] *= gain;
            const int64_t page = rows.tables[n][rows.positions[n] / page_size_], place = rows.positions[n] % page_size_;
            for (int64_t h = 0; h < config_.n_kv_heads; h++) {
                float* key = row + k_row() + h * D;
                turn(key, layer.k_norm, n, thread);
                kv_page_.put_key(k_, key, place, narrow.get(), keys(index, page, h));
                kv_page_.put_value(k_, row + v_row() + h * D, place, narrow.get(), values(index, page, h));
            }
        }
    });
}

std::vector<Model::Run> Model::runs(const Rows& rows) const {
    std::vector<Run> found;
    for (int64_t n = 0; n < rows.N; n++) {
        const bool goes_on = !found.empty() && found.back().n_rows < TOGETHER && rows.tables[n] == rows.tables[n - 1] &&
                             rows.positions[n] == rows.positions[n - 1] + 1;
        if (!goes_on) found.push_back({n, 0});
        found.back().n_rows++;
    }
    return found;
}

Attention Model::attention(int64_t layer, const Rows& rows, const Run& run, int64_t head, Pages& keys_of,
                           Pages& values_of) {
    const int64_t D = config_.head_dim, group = config_.n_heads / config_.n_kv_heads, column = head * group * D;
    const int64_t window = config_.layers[layer].window, n = run.first, length = rows.positions[n] + 1;
    // Pages before a window are left out in whole lanes, so that what a row adds up does not depend on where its run
    // begins.
    const int64_t together = LANES / std::gcd(LANES, page_size_);
    const int64_t unseen = window ? std::max<int64_t>(0, length - window) / page_size_ : 0;
    const int64_t skipped = unseen / together * together, before = skipped * page_size_;
    const int64_t longest = length - before + run.n_rows - 1, n_pages = (longest + page_size_ - 1) / page_size_;
    keys_of.resize(n_pages);
    values_of.resize(n_pages);
    for (int64_t i = 0; i < n_pages; i++) {
        keys_of[i] = keys(layer, rows.tables[n][skipped + i], head);
        values_of[i] = values(layer, rows.tables[n][skipped + i], head);
    }
    return {qkv_.get() + n * qkv_width() + column,
            mixed_.get() + n * q_dim() + column,
            qkv_width(),
            q_dim(),
            run.n_rows,
            length - before,
            page_size_,
            group,
            D,
            keys_of.data(),
            values_of.data(),
            nullptr,
            nullptr,
            nullptr,
            window,
            kv_page_.eight_bits};
}

void Model::attend(int64_t layer, const Rows& rows, const std::vector<Run>& runs) {
    const int64_t K = config_.n_kv_heads, n_items = static_cast<int64_t>(runs.size()) * K;
    if (attend_in_parts(layer, rows, runs)) return;
    std::atomic<int64_t> next{0};
    // Rows differ in length, so threads take them as they come.
    pool_.run([&](int thread) {
        for (int64_t item; (item = next.fetch_add(1)) < n_items;) {
            Attention a = attention(layer, rows, runs[item / K], item % K, key_pages_[thread], value_pages_[thread]);
            const int64_t longest = a.length + a.n_rows - 1;
            chunks_[thread].resize(chunk_room(longest));
            scratch_[thread].reserve(score_room(a.group, longest));
            narrow_[thread].reserve(narrow_room(a.group, longest, a.head_dim));
            a.scores = scratch_[thread].get(), a.narrow = narrow_[thread].get(), a.chunks = chunks_[thread].data();
            k_.attend(a);
        }
    });
}

void Model::join(Adapted product, const Buffer<float>& bias, const Buffer<float>& post_norm, int64_t N) {
    float* out = branch(post_norm);
    this->product({{&(layers_[product.layer].*ADAPTED[product.first])}}, N, out, config_.dim,
                  post_norm.size() ? Store::SET : Store::ADD);
    if (!bias.size() && !asked_) return;
    pool_.split(N, 1, [&](int, int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; n++) {
            add_bias(out + n * config_.dim, bias);
            low_rank_out(product, n, {out + n * config_.dim});
        }
    });
}

// The branch's norm, and its sum with the stream.
void Model::end_branch(const Buffer<float>& post_norm, int64_t N) {
    if (!post_norm.size()) return;
    const int64_t dim = config_.dim;
    pool_.split(N, 1, [&](int, int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; n++) {
            float *row = branch_.get() + n * dim, *x = x_.get() + n * dim;
            k_.rms_norm(row, post_norm.get(), dim, config_.norm_eps, row);
            for (int64_t i = 0; i < dim; i++) x[i] += row[i];
        }
    });
}

void Model::dense(const Layer& layer, int64_t index, int64_t N) {
    const int64_t inter = dense_dim(index), up = up_row(inter), width = gate_up_width(inter);
    const auto gate = gate_of(index);
    wide_.reserve(N * width);
    product({{&layer.gate}, {&layer.up, up}}, N, wide_.get(), width, Store::SET);
    act_.reserve(N, inter);
    pool_.split(N, 1, [&](int, int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; n++) {
            float* row = wide_.get() + n * width;
            add_bias(row, layer.gate_up_bias);
            low_rank_out({index, GATE, 2}, n, {row, row + up});
            gate(row, row + up, inter, row);
            take(row, inter, act_, n);
            low_rank_in({index, DOWN, 1}, n, row);
        }
    });
    join({index, DOWN, 1}, layer.down_bias, layer.mlp_post_norm, N);
}

void Model::feed_forward(const Layer& layer, int64_t index, int64_t N) {
    const bool sparse = config_.layers[index].inter_dim == 0;
    if (sparse) normed_.reserve(N * config_.dim);
    normalize(x_.get(), layer.mlp_norm, N, {index, GATE, dense_dim(index) ? 2 : 0}, sparse ? normed_.get() : nullptr);
    if (dense_dim(index))
        dense(layer, index, N);
    else if (layer.mlp_post_norm.size())
        std::memset(branch_.get(), 0, N * config_.dim * sizeof(float));
    if (sparse) experts(layer, index, N);
    end_branch(layer.mlp_post_norm, N);
}

// Embeddings, and the angles of every rope.
void Model::embed(const Rows& rows) {
    const int64_t N = rows.N, dim = config_.dim, n_pairs = config_.rope_dim() / 2;
    x_.reserve(N * dim);
    cos_.reserve(config_.ropes.size() * N * n_pairs);
    sin_.reserve(config_.ropes.size() * N * n_pairs);
    pool_.split(N, 1, [&](int, int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; n++) {
            float* x = x_.get() + n * dim;
            decode_row(embed_, rows.ids[n], x);
            for (int64_t i = 0; config_.embed_scale != 1.0f && i < dim; i++) x[i] *= config_.embed_scale;
            for (size_t rope = 0; rope < config_.ropes.size(); rope++) {
                const int64_t to = (n * config_.ropes.size() + rope) * n_pairs;
                rope_row(config_.ropes[rope], rows.positions[n], &cos_[to], &sin_[to]);
            }
        }
    });
}

void Model::run_block(int64_t index, const Rows& rows, const std::vector<Run>& together) {
    const Layer& layer = layers_[index];
    const int64_t N = rows.N, width = qkv_width();
    mixed_.reserve(N * mixed_dim());
    if (config_.post_norms) branch_.reserve(N * config_.dim);
    normalize(x_.get(), layer.attn_norm, N, {index, Q, config_.latent ? 0 : 3});
    if (config_.latent) {
        latent_attention(layer, index, rows);
    } else {
        qkv_.reserve(N * width);
        product({{&layer.q}, {&layer.k, k_row()}, {&layer.v, v_row()}}, N, qkv_.get(), width, Store::SET);
        place(layer, index, rows);
        attend(index, rows, together);
    }
    act_.reserve(N, mixed_dim());
    pool_.split(N, 1, [&](int, int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; n++) {
            const float* mixed = mixed_.get() + n * mixed_dim();
            take(mixed, mixed_dim(), act_, n);
            low_rank_in({index, O, 1}, n, mixed);
        }
    });
    join({index, O, 1}, layer.o_bias, layer.attn_post_norm, N);
    end_branch(layer.attn_post_norm, N);
    feed_forward(layer, index, N);
}

void Model::make_logits(const Buffer<float>& norm, const int64_t* rows, int64_t n_rows) {
    const int64_t dim = config_.dim;
    n_logit_rows_ = n_rows;
    if (n_rows == 0) return;
    picked_.reserve(n_rows * dim);
    for (int64_t i = 0; i < n_rows; i++)
        std::memcpy(picked_.get() + i * dim, x_.get() + rows[i] * dim, dim * sizeof(float));
    act_.meets = in_head_;
    normalize(picked_.get(), norm, n_rows, {});
    logits_.reserve(n_rows * config_.vocab_size);
    product({{config_.tied_head ? &embed_ : &head_}}, n_rows, logits_.get(), config_.vocab_size, Store::SET);
}

void Model::forward(const Rows& rows, const int64_t* logit_rows, int64_t n_logit_rows) {
    require_weights();
    act_.meets = gathered_.meets = in_layers_;
    choose_adapters(rows.adapters, rows.N);
    embed(rows);
    const std::vector<Run> together = runs(rows);
    for (int64_t index = 0; index < config_.n_layers(); index++) run_block(index, rows, together);
    keep_hidden(norm_, rows.N);
    make_logits(norm_, logit_rows, n_logit_rows);
}

}  // namespace smallpress
