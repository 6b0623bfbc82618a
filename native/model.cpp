#include "model.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "half.h"

namespace smallpress {
namespace {

constexpr int64_t TOGETHER = 64;  // rows of a sequence that attend in one piece of work: a few full tiles

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
    norm_ = Buffer<float>(config.dim);
    for (int64_t i = 0; i < config.head_dim / 2; i++)
        turns_.push_back(std::pow(config.rope_theta, -2.0 * i / config.head_dim));
    layers_.resize(config.n_layers);
    scratch_.resize(pool_.n_threads());
    key_pages_.resize(pool_.n_threads());
    value_pages_.resize(pool_.n_threads());
    narrow_.resize(pool_.n_threads());
    chunks_.resize(pool_.n_threads());
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

Model::Place Model::find(const std::string& name, int64_t n_rows, int64_t n_columns) {
    const int64_t dim = config_.dim, inter = config_.inter_dim, q = q_dim(), kv = kv_dim(), vocab = config_.vocab_size;
    auto checked = [&](Place place) {
        if (n_rows != place.n_rows || n_columns != place.n_columns || (!place.matrix && !place.vector))
            throw std::invalid_argument(name + " is not a weight of this model in this shape");
        return place;
    };
    auto matrix = [&](Panels& to, int64_t N, int64_t K) { return checked({&to, nullptr, N, K, 0, 0}); };
    auto vector = [&](Buffer<float>& to, int64_t size, int64_t first, int64_t n) {
        return checked({nullptr, &to, n, 0, size, first});
    };
    if (name == "embed.weight") return matrix(embed_, vocab, dim);
    if (name == "head.weight" && !config_.tied_head) return matrix(head_, vocab, dim);
    if (name == "norm.weight") return vector(norm_, dim, 0, dim);
    const std::string start = "layers.";
    const size_t dot = name.find('.', start.size());
    if (name.rfind(start, 0) != 0 || dot == std::string::npos) return checked({});
    const std::string number = name.substr(start.size(), dot - start.size()), rest = name.substr(dot + 1);
    if (number.empty() || number.size() > 6 || number.find_first_not_of("0123456789") != std::string::npos)
        return checked({});
    const size_t index = std::stoul(number);
    if (index >= layers_.size()) return checked({});
    Layer& layer = layers_[index];
    if (rest == "attn_norm.weight") return vector(layer.attn_norm, dim, 0, dim);
    if (rest == "mlp_norm.weight") return vector(layer.mlp_norm, dim, 0, dim);
    if (rest == "attn.q.weight") return matrix(layer.q, q, dim);
    if (rest == "attn.k.weight") return matrix(layer.k, kv, dim);
    if (rest == "attn.v.weight") return matrix(layer.v, kv, dim);
    if (rest == "attn.q.bias") return vector(layer.qkv_bias, qkv_width(), 0, q);
    if (rest == "attn.k.bias") return vector(layer.qkv_bias, qkv_width(), k_row(), kv);
    if (rest == "attn.v.bias") return vector(layer.qkv_bias, qkv_width(), v_row(), kv);
    if (rest == "attn.o.weight") return matrix(layer.o, dim, q);
    if (rest == "attn.o.bias") return vector(layer.o_bias, dim, 0, dim);
    if (rest == "mlp.gate.weight") return matrix(layer.gate, inter, dim);
    if (rest == "mlp.up.weight") return matrix(layer.up, inter, dim);
    if (rest == "mlp.gate.bias") return vector(layer.gate_up_bias, gate_up_width(), 0, inter);
    if (rest == "mlp.up.bias") return vector(layer.gate_up_bias, gate_up_width(), up_row(), inter);
    if (rest == "mlp.down.weight") return matrix(layer.down, dim, inter);
    if (rest == "mlp.down.bias") return vector(layer.down_bias, dim, 0, dim);
    return checked({});
}

template <typename Pack>
void Model::fill(const std::string& name, Panels& to, Coding coding, const Place& place, Pack pack) {
    if (to.n_blocks == 0 || to.coding != coding) {
        to = Panels();  // the old memory first
        to = Panels(coding, place.n_rows, place.n_columns);
    }
    std::atomic<bool> finite{true};
    pool_.split(to.n_panels(), 1, [&](int thread, int64_t begin, int64_t end) {
        for (int64_t panel = begin; panel < end; panel++)
            if (!pack(thread, panel, panel * PANEL, std::min(PANEL, place.n_rows - panel * PANEL))) finite = false;
    });
    if (!finite) throw std::overflow_error(name + " holds NaN or infinity");
    (coding == Coding::BF16 ? any_bf16_ : any_quantized_) = true;
}

void Model::set(const std::string& name, const float* values, int64_t n_rows, int64_t n_columns, Coding coding) {
    const Place place = find(name, n_rows, n_columns);
    if (place.vector) {
        if (!std::all_of(values, values + n_rows, [](float x) { return std::isfinite(x); }))
            throw std::overflow_error(name + " holds NaN or infinity");
        place.vector->reserve(place.size);
        std::memcpy(place.vector->get() + place.first, values, n_rows * sizeof(float));
        return;
    }
    Panels& to = *place.matrix;
    fill(name, to, coding, place,
         [&](int, int64_t panel, int64_t row, int64_t n) { return k_.pack(values + row * n_columns, n, to, panel); });
}

void Model::set_blocks(const std::string& name, const BlockFormat& format, const uint8_t* rows, int64_t n_rows,
                       int64_t row_bytes) {
    const int64_t n_columns = row_bytes / format.bytes * format.columns;
    const Place place = find(name, n_rows, n_columns);
    Panels& to = *place.matrix;
    fill(name, to, format.coding, place, [&](int thread, int64_t panel, int64_t row, int64_t n) {
        const uint8_t* from = rows + row * row_bytes;
        if (format.regroup) return format.regroup(from, row_bytes, n, to, panel);
        scratch_[thread].reserve(PANEL * n_columns);
        float* values = scratch_[thread].get();
        for (int64_t i = 0; i < n; i++) format.decode(from + i * row_bytes, n_columns, values + i * n_columns);
        return k_.pack(values, n, to, panel);
    });
}

void Model::require_weights() const {
    auto require = [](bool there) {
        if (!there) throw std::logic_error("a weight has not been set");
    };
    require(embed_.N && norm_.size() && (config_.tied_head || head_.N));
    for (const Layer& layer : layers_) {
        for (const Panels* weight : {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down})
            require(weight->N);
        require(layer.attn_norm.size() && layer.mlp_norm.size());
    }
}

int64_t Model::weight_bytes() const {
    int64_t n = (config_.tied_head ? embed_ : head_).data.size();
    for (const Layer& layer : layers_)
        for (const Panels* weight : {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down})
            n += weight->data.size();
    return n;
}

void Model::copy_page(int64_t source, int64_t target) {
    const size_t bytes = page_entries() * sizeof(uint16_t);
    for (int64_t layer = 0; layer < config_.n_layers; layer++) {
        std::memcpy(keys(layer, target, 0), keys(layer, source, 0), bytes);
        std::memcpy(values(layer, target, 0), values(layer, source, 0), bytes);
    }
}

void Model::read_page(int64_t page, uint8_t* to) const {
    const size_t bytes = page_entries() * sizeof(uint16_t);
    for (int64_t layer = 0; layer < config_.n_layers; layer++, to += 2 * bytes) {
        std::memcpy(to, keys(layer, page, 0), bytes);
        std::memcpy(to + bytes, values(layer, page, 0), bytes);
    }
}

void Model::write_page(int64_t page, const uint8_t* from) {
    const size_t bytes = page_entries() * sizeof(uint16_t);
    for (int64_t layer = 0; layer < config_.n_layers; layer++, from += 2 * bytes) {
        std::memcpy(keys(layer, page, 0), from, bytes);
        std::memcpy(values(layer, page, 0), from + bytes, bytes);
    }
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

void Model::take(const float* x, int64_t n, int64_t row) {
    if (any_quantized_) k_.quantize(x, n, act_, row);
    if (any_bf16_) k_.narrow(x, n, act_, row);
}

void Model::normalize(const float* x, const Buffer<float>& weight, int64_t M) {
    const int64_t dim = config_.dim;
    act_.reserve(M, dim);
    pool_.split(M, 1, [&](int thread, int64_t begin, int64_t end) {
        scratch_[thread].reserve(dim);
        float* normed = scratch_[thread].get();
        for (int64_t row = begin; row < end; row++) {
            k_.rms_norm(x + row * dim, weight.get(), dim, config_.norm_eps, normed);
            take(normed, dim, row);
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
                uint16_t* to = keys(index, page, h) + place / LANES * D * LANES + place % LANES * 2;
                for (int64_t d = 0; d < D; d++) to[d / 2 * LANES * 2 + d % 2] = narrow[d];
                k_.to_bf16(row + v_row() + h * D, D, narrow.get());
                to = values(index, page, h) + place / 2 * D * 2 + place % 2;
                for (int64_t d = 0; d < D; d++) to[d * 2] = narrow[d];
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

void Model::attend(int64_t layer, const Rows& rows, const std::vector<Run>& runs) {
    const int64_t D = config_.head_dim, K = config_.n_kv_heads, group = config_.n_heads / K;
    const int64_t n_items = static_cast<int64_t>(runs.size()) * K;
    std::atomic<int64_t> next{0};
    // Rows differ in length, so threads take them as they come.
    pool_.run([&](int thread) {
        auto &key_pages = key_pages_[thread], &value_pages = value_pages_[thread], &chunks = chunks_[thread];
        for (int64_t item; (item = next.fetch_add(1)) < n_items;) {
            const auto [n, n_rows] = runs[item / K];
            const int64_t head = item % K, longest = rows.positions[n] + n_rows, column = head * group * D;
            const int64_t n_pages = (longest + page_size_ - 1) / page_size_;
            key_pages.resize(n_pages);
            value_pages.resize(n_pages);
            chunks.resize(chunk_room(longest));
            for (int64_t i = 0; i < n_pages; i++) {
                key_pages[i] = keys(layer, rows.tables[n][i], head);
                value_pages[i] = values(layer, rows.tables[n][i], head);
            }
            scratch_[thread].reserve(score_room(group, longest));
            narrow_[thread].reserve(narrow_room(group, longest, D));
            k_.attend({qkv_.get() + n * qkv_width() + column, mixed_.get() + n * q_dim() + column, qkv_width(), q_dim(),
                       n_rows, rows.positions[n] + 1, page_size_, group, D, key_pages.data(), value_pages.data(),
                       scratch_[thread].get(), narrow_[thread].get(), chunks.data()});
        }
    });
}

void Model::forward(const Rows& rows, const int64_t* logit_rows, int64_t n_logit_rows) {
    const int64_t N = rows.N, dim = config_.dim, D = config_.head_dim, width = qkv_width();
    const int64_t inter = config_.inter_dim;
    require_weights();
    x_.reserve(N * dim);
    qkv_.reserve(N * width);
    mixed_.reserve(N * q_dim());
    wide_.reserve(N * gate_up_width());
    cos_.reserve(N * D / 2);
    sin_.reserve(N * D / 2);
    pool_.split(N, 1, [&](int, int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; n++) {
            decode_row(embed_, rows.ids[n], x_.get() + n * dim);
            for (int64_t i = 0; i < D / 2; i++) {
                const double angle = rows.positions[n] * turns_[i];
                cos_[n * D / 2 + i] = static_cast<float>(std::cos(angle));
                sin_[n * D / 2 + i] = static_cast<float>(std::sin(angle));
            }
        }
    });
    const std::vector<Run> together = runs(rows);
    for (int64_t index = 0; index < config_.n_layers; index++) {
        const Layer& layer = layers_[index];
        normalize(x_.get(), layer.attn_norm, N);
        product({{&layer.q}, {&layer.k, k_row()}, {&layer.v, v_row()}}, N, qkv_.get(), width, Store::SET);
        place(layer, index, rows);
        attend(index, rows, together);
        act_.reserve(N, q_dim());
        pool_.split(N, 1, [&](int, int64_t begin, int64_t end) {
            for (int64_t n = begin; n < end; n++) take(mixed_.get() + n * q_dim(), q_dim(), n);
        });
        product({{&layer.o}}, N, x_.get(), dim, Store::ADD);
        for (int64_t n = 0; n < N; n++) add_bias(x_.get() + n * dim, layer.o_bias);
        normalize(x_.get(), layer.mlp_norm, N);
        product({{&layer.gate}, {&layer.up, up_row()}}, N, wide_.get(), gate_up_width(), Store::SET);
        act_.reserve(N, inter);
        pool_.split(N, 1, [&](int, int64_t begin, int64_t end) {
            for (int64_t n = begin; n < end; n++) {
                float* gate = wide_.get() + n * gate_up_width();
                add_bias(gate, layer.gate_up_bias);
                k_.swiglu(gate, gate + up_row(), inter, gate);
                take(gate, inter, n);
            }
        });
        product({{&layer.down}}, N, x_.get(), dim, Store::ADD);
        for (int64_t n = 0; n < N; n++) add_bias(x_.get() + n * dim, layer.down_bias);
    }
    n_logit_rows_ = n_logit_rows;
    if (n_logit_rows == 0) return;
    picked_.reserve(n_logit_rows * dim);
    for (int64_t i = 0; i < n_logit_rows; i++)
        std::memcpy(picked_.get() + i * dim, x_.get() + logit_rows[i] * dim, dim * sizeof(float));
    normalize(picked_.get(), norm_, n_logit_rows);
    logits_.reserve(n_logit_rows * config_.vocab_size);
    product({{config_.tied_head ? &embed_ : &head_}}, n_logit_rows, logits_.get(), config_.vocab_size, Store::SET);
}

}  // namespace smallpress
