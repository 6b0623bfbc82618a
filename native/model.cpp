#include "model.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "half.h"

namespace smallpress {
namespace {

void add_bias(float* row, const Buffer<float>& bias) {
    for (size_t i = 0; i < bias.size(); i++) row[i] += bias[i];
}

// Turns dimension i with dimension i + D / 2 (half-split layout).
void rotate(float* head, const float* cos, const float* sin, int64_t D) {
    for (int64_t i = 0; i < D / 2; i++) {
        const float left = head[i], right = head[i + D / 2];
        head[i] = left * cos[i] - right * sin[i];
        head[i + D / 2] = right * cos[i] + left * sin[i];
    }
}

}  // namespace

Model::Model(const Config& config, int64_t n_pages, int64_t page_size, int n_threads, const std::string& kernels_name)
    : config_(config), n_pages_(n_pages), page_size_(page_size), k_(kernels(kernels_name)), pool_(n_threads) {
    if (config.n_heads % config.n_kv_heads || config.head_dim % 2)
        throw std::invalid_argument("n_heads must be a multiple of n_kv_heads, and head_dim even");
    embed_ = PanelsQ8(config.vocab_size, config.dim);
    if (!config.tied_head) head_ = PanelsQ8(config.vocab_size, config.dim);
    norm_ = Buffer<float>(config.dim);
    for (int64_t i = 0; i < config.head_dim / 2; i++)
        turns_.push_back(std::pow(config.rope_theta, -2.0 * i / config.head_dim));
    layers_.resize(config.n_layers);
    for (Layer& layer : layers_) {
        layer.qkv = PanelsQ8(qkv_width(), config.dim);
        layer.o = PanelsQ8(config.dim, q_dim());
        layer.gate_up = PanelsQ8(gate_up_width(), config.dim);
        layer.down = PanelsQ8(config.dim, config.inter_dim);
        layer.attn_norm = Buffer<float>(config.dim);
        layer.mlp_norm = Buffer<float>(config.dim);
    }
    scratch_.resize(pool_.n_threads());
    key_pages_.resize(pool_.n_threads());
    value_pages_.resize(pool_.n_threads());
    narrow_.resize(pool_.n_threads());
    reset();
}

void Model::reset() {
    cache_ = Buffer<uint16_t>();  // the old memory first
    cache_ = Buffer<uint16_t>(config_.n_layers * 2 * n_pages_ * page_entries());
}

uint16_t* Model::keys(int64_t layer, int64_t page, int64_t kv_head) const {
    return cache_.get() + (layer * 2 * n_pages_ + page) * page_entries() + kv_head * head_entries();
}

uint16_t* Model::values(int64_t layer, int64_t page, int64_t kv_head) const {
    return keys(layer, n_pages_ + page, kv_head);
}

void Model::pack(const std::string& name, const PanelsQ8& to, int64_t first_row, const float* values, int64_t n_rows) {
    std::atomic<bool> finite{true};
    pool_.split((n_rows + PANEL - 1) / PANEL, 1, [&](int, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
            const int64_t row = i * PANEL, n = std::min(PANEL, n_rows - row);
            if (!k_.pack_q8(values + row * to.K, n, to, first_row / PANEL + i)) finite = false;
        }
    });
    if (!finite) throw std::overflow_error(name + " holds NaN or infinity");
}

void Model::set(const std::string& name, const float* values, int64_t n_rows, int64_t n_columns) {
    auto fault = [&] { return std::invalid_argument(name + " is not a weight of this model in this shape"); };
    auto vector = [&](Buffer<float>& to, int64_t size, int64_t first, int64_t n) {
        if (n_columns != 0 || n_rows != n) throw fault();
        to.reserve(size);
        std::memcpy(to.get() + first, values, n * sizeof(float));
    };
    auto matrix = [&](const PanelsQ8& to, int64_t first, int64_t n) {
        if (n_rows != n || n_columns != to.K) throw fault();
        pack(name, to, first, values, n);
    };
    const int64_t dim = config_.dim, inter = config_.inter_dim, q = q_dim(), kv = kv_dim();
    if (name == "embed.weight") return matrix(embed_, 0, config_.vocab_size);
    if (name == "head.weight" && !config_.tied_head) return matrix(head_, 0, config_.vocab_size);
    if (name == "norm.weight") return vector(norm_, dim, 0, dim);
    const std::string start = "layers.";
    const size_t dot = name.find('.', start.size());
    if (name.rfind(start, 0) != 0 || dot == std::string::npos) throw fault();
    const std::string number = name.substr(start.size(), dot - start.size()), rest = name.substr(dot + 1);
    if (number.empty() || number.size() > 6 || number.find_first_not_of("0123456789") != std::string::npos)
        throw fault();
    const size_t index = std::stoul(number);
    if (index >= layers_.size()) throw fault();
    Layer& layer = layers_[index];
    if (rest == "attn_norm.weight") return vector(layer.attn_norm, dim, 0, dim);
    if (rest == "mlp_norm.weight") return vector(layer.mlp_norm, dim, 0, dim);
    if (rest == "attn.q.weight") return matrix(layer.qkv, 0, q);
    if (rest == "attn.k.weight") return matrix(layer.qkv, k_row(), kv);
    if (rest == "attn.v.weight") return matrix(layer.qkv, v_row(), kv);
    if (rest == "attn.q.bias") return vector(layer.qkv_bias, qkv_width(), 0, q);
    if (rest == "attn.k.bias") return vector(layer.qkv_bias, qkv_width(), k_row(), kv);
    if (rest == "attn.v.bias") return vector(layer.qkv_bias, qkv_width(), v_row(), kv);
    if (rest == "attn.o.weight") return matrix(layer.o, 0, dim);
    if (rest == "attn.o.bias") return vector(layer.o_bias, dim, 0, dim);
    if (rest == "mlp.gate.weight") return matrix(layer.gate_up, 0, inter);
    if (rest == "mlp.up.weight") return matrix(layer.gate_up, up_row(), inter);
    if (rest == "mlp.gate.bias") return vector(layer.gate_up_bias, gate_up_width(), 0, inter);
    if (rest == "mlp.up.bias") return vector(layer.gate_up_bias, gate_up_width(), up_row(), inter);
    if (rest == "mlp.down.weight") return matrix(layer.down, 0, dim);
    if (rest == "mlp.down.bias") return vector(layer.down_bias, dim, 0, dim);
    throw fault();
}

void Model::copy_page(int64_t source, int64_t target) {
    const size_t bytes = page_entries() * sizeof(uint16_t);
    for (int64_t layer = 0; layer < config_.n_layers; layer++) {
        std::memcpy(keys(layer, target, 0), keys(layer, source, 0), bytes);
        std::memcpy(values(layer, target, 0), values(layer, source, 0), bytes);
    }
}

void Model::embed(int64_t id, float* out) const {
    const uint8_t* codes = embed_.codes(id / PANEL) + id % PANEL * QUAD;
    const uint16_t* scales = embed_.scales(id / PANEL) + id % PANEL;
    for (int64_t i = 0; i < config_.dim; i++) {
        const uint8_t code = codes[i / QUAD * PANEL * QUAD + i % QUAD];
        out[i] = half_to_float(scales[i / BLOCK * PANEL]) * static_cast<float>(code - 128);
    }
}

void Model::product(const PanelsQ8& w, int64_t M, float* out, int64_t stride, Store store) {
    pool_.split(w.n_panels(), 1,
                [&](int, int64_t begin, int64_t end) { k_.product_q8(act_, M, w, begin, end, out, stride, store); });
}

void Model::normalize(const float* x, const Buffer<float>& weight, int64_t M) {
    const int64_t dim = config_.dim;
    act_.reserve(M, dim);
    pool_.split(M, 1, [&](int thread, int64_t begin, int64_t end) {
        scratch_[thread].reserve(dim);
        float* normed = scratch_[thread].get();
        for (int64_t row = begin; row < end; row++) {
            k_.rms_norm(x + row * dim, weight.get(), dim, config_.norm_eps, normed);
            k_.quantize(normed, dim, act_, row);
        }
    });
}

// Biases, rotation, and keys and values into their pages.
void Model::place(const Layer& layer, int64_t index, const Rows& rows) {
    const int64_t D = config_.head_dim;
    pool_.split(rows.N, 1, [&](int thread, int64_t begin, int64_t end) {
        Buffer<uint16_t>& narrow = narrow_[thread];
        narrow.reserve(D);
        for (int64_t n = begin; n < end; n++) {
            float* row = qkv_.get() + n * qkv_width();
            add_bias(row, layer.qkv_bias);
            const float *cos = &cos_[n * D / 2], *sin = &sin_[n * D / 2];
            for (int64_t h = 0; h < config_.n_heads; h++) rotate(row + h * D, cos, sin, D);
            const int64_t page = rows.tables[n][rows.positions[n] / page_size_], place = rows.positions[n] % page_size_;
            for (int64_t h = 0; h < config_.n_kv_heads; h++) {
                float* key = row + k_row() + h * D;
                rotate(key, cos, sin, D);
                k_.to_bf16(key, D, narrow.get());
                uint16_t* to = keys(index, page, h) + place / LANES * D * LANES + place % LANES;
                for (int64_t d = 0; d < D; d++) to[d * LANES] = narrow[d];
                k_.to_bf16(row + v_row() + h * D, D, values(index, page, h) + place * D);
            }
        }
    });
}

void Model::attend(int64_t layer, const Rows& rows) {
    const int64_t D = config_.head_dim, K = config_.n_kv_heads, group = config_.n_heads / K, n_items = rows.N * K;
    std::atomic<int64_t> next{0};
    // Rows differ in length, so threads take them as they come.
    pool_.run([&](int thread) {
        auto &key_pages = key_pages_[thread], &value_pages = value_pages_[thread];
        for (int64_t item; (item = next.fetch_add(1)) < n_items;) {
            const int64_t n = item / K, head = item % K, length = rows.positions[n] + 1;
            const int64_t n_pages = (length + page_size_ - 1) / page_size_;
            key_pages.resize(n_pages);
            value_pages.resize(n_pages);
            for (int64_t i = 0; i < n_pages; i++) {
                key_pages[i] = keys(layer, rows.tables[n][i], head);
                value_pages[i] = values(layer, rows.tables[n][i], head);
            }
            scratch_[thread].reserve(group * score_width(length));
            const int64_t first = head * group * D;
            k_.attend(qkv_.get() + n * qkv_width() + first, key_pages.data(), value_pages.data(), length, page_size_,
                      group, D, scratch_[thread].get(), mixed_.get() + n * q_dim() + first);
        }
    });
}

void Model::forward(const Rows& rows, const int64_t* logit_rows, int64_t n_logit_rows) {
    const int64_t N = rows.N, dim = config_.dim, D = config_.head_dim, width = qkv_width();
    const int64_t inter = config_.inter_dim;
    x_.reserve(N * dim);
    qkv_.reserve(N * width);
    mixed_.reserve(N * q_dim());
    wide_.reserve(N * gate_up_width());
    cos_.reserve(N * D / 2);
    sin_.reserve(N * D / 2);
    pool_.split(N, 1, [&](int, int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; n++) {
            embed(rows.ids[n], x_.get() + n * dim);
            for (int64_t i = 0; i < D / 2; i++) {
                const double angle = rows.positions[n] * turns_[i];
                cos_[n * D / 2 + i] = static_cast<float>(std::cos(angle));
                sin_[n * D / 2 + i] = static_cast<float>(std::sin(angle));
            }
        }
    });
    for (int64_t index = 0; index < config_.n_layers; index++) {
        const Layer& layer = layers_[index];
        normalize(x_.get(), layer.attn_norm, N);
        product(layer.qkv, N, qkv_.get(), width, Store::SET);
        place(layer, index, rows);
        attend(index, rows);
        act_.reserve(N, q_dim());
        pool_.split(N, 1, [&](int, int64_t begin, int64_t end) {
            for (int64_t n = begin; n < end; n++) k_.quantize(mixed_.get() + n * q_dim(), q_dim(), act_, n);
        });
        product(layer.o, N, x_.get(), dim, Store::ADD);
        for (int64_t n = 0; n < N; n++) add_bias(x_.get() + n * dim, layer.o_bias);
        normalize(x_.get(), layer.mlp_norm, N);
        product(layer.gate_up, N, wide_.get(), gate_up_width(), Store::SET);
        act_.reserve(N, inter);
        pool_.split(N, 1, [&](int, int64_t begin, int64_t end) {
            for (int64_t n = begin; n < end; n++) {
                float* gate = wide_.get() + n * gate_up_width();
                add_bias(gate, layer.gate_up_bias);
                k_.swiglu(gate, gate + up_row(), inter, gate);
                k_.quantize(gate, inter, act_, n);
            }
        });
        product(layer.down, N, x_.get(), dim, Store::ADD);
        for (int64_t n = 0; n < N; n++) add_bias(x_.get() + n * dim, layer.down_bias);
    }
    n_logit_rows_ = n_logit_rows;
    if (n_logit_rows == 0) return;
    picked_.reserve(n_logit_rows * dim);
    for (int64_t i = 0; i < n_logit_rows; i++)
        std::memcpy(picked_.get() + i * dim, x_.get() + logit_rows[i] * dim, dim * sizeof(float));
    normalize(picked_.get(), norm_, n_logit_rows);
    logits_.reserve(n_logit_rows * config_.vocab_size);
    product(config_.tied_head ? embed_ : head_, n_logit_rows, logits_.get(), config_.vocab_size, Store::SET);
}

}  // namespace smallpress
