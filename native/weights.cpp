// How a model takes its weights: where each goes by its name, and in what coding.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "model.h"

namespace smallpress {

int64_t Model::dense_dim(int64_t index) const {
    const int64_t inter = config_.layers[index].inter_dim;
    return inter ? inter : config_.experts->shared_dim;
}

Model::Place Model::find(const std::string& name, int64_t n_rows, int64_t n_columns) {
    const int64_t dim = config_.dim, vocab = config_.vocab_size;
    Place place;
    // Where `name` is `start`, a number below `n` and a dot: the number and what follows.
    auto numbered = [&](const std::string& start, int64_t n) -> std::pair<int64_t, std::string> {
        const size_t dot = name.rfind(start, 0) == 0 ? name.find('.', start.size()) : std::string::npos;
        if (dot == std::string::npos) return {-1, ""};
        const std::string number = name.substr(start.size(), dot - start.size());
        const bool is_number =
            !number.empty() && number.size() < 7 && number.find_first_not_of("0123456789") == std::string::npos;
        const int64_t found = is_number ? std::stol(number) : n;
        return {found < n ? found : -1, name.substr(dot + 1)};
    };
    if (name == "embed.weight") {
        place = matrix(embed_, vocab, dim);
    } else if (name == "head.weight" && !config_.tied_head) {
        place = matrix(head_, vocab, dim);
    } else if (name == "norm.weight") {
        place = vector(norm_, dim);
    } else if (const auto [index, rest] = numbered("layers.", config_.n_layers()); index >= 0) {
        place = find_in_block(index, rest);
    } else if (const auto [k, rest] = numbered("mtp.", config_.n_modules); k >= 0) {
        const int64_t block = config_.n_layers() + k;
        const std::string start = "block.";
        place = rest.rfind(start, 0) == 0 ? find_in_block(block, rest.substr(start.size()))
                                          : find_in_module(layers_[block], rest);
    }
    if (!place.is_one() || n_rows != place.n_rows || n_columns != place.n_columns)
        throw std::invalid_argument(name + " is not a weight of this model in this shape");
    return place;
}

Model::Place Model::find_in_block(int64_t index, const std::string& rest) {
    const Place place = find_attention(layers_[index], rest);
    return place.is_one() ? place : find_feed_forward(layers_[index], index, rest);
}

Model::Place Model::find_in_module(Layer& layer, const std::string& rest) {
    const int64_t dim = config_.dim;
    if (rest == "embed_norm.weight") return vector(layer.embed_norm, dim);
    if (rest == "hidden_norm.weight") return vector(layer.hidden_norm, dim);
    if (rest == "norm.weight") return vector(layer.norm, dim);
    return rest == "proj.weight" ? matrix(layer.proj, dim, 2 * dim) : Place{};
}

Model::Place Model::find_attention(Layer& layer, const std::string& rest) {
    const int64_t dim = config_.dim, q = q_dim(), kv = kv_dim(), D = config_.head_dim;
    if (rest == "attn_norm.weight") return vector(layer.attn_norm, dim);
    if (rest == "attn_post_norm.weight" && config_.post_norms) return vector(layer.attn_post_norm, dim);
    if (rest == "attn.o.weight") return matrix(layer.o, dim, mixed_dim());
    if (rest == "attn.o.bias") return vector(layer.o_bias, dim);
    if (config_.latent) return find_latent(layer, rest);
    if (rest == "attn.q.weight") return matrix(layer.q, q, dim);
    if (rest == "attn.k.weight") return matrix(layer.k, kv, dim);
    if (rest == "attn.v.weight") return matrix(layer.v, kv, dim);
    if (rest == "attn.q.bias") return part(layer.qkv_bias, qkv_width(), 0, q);
    if (rest == "attn.k.bias") return part(layer.qkv_bias, qkv_width(), k_row(), kv);
    if (rest == "attn.v.bias") return part(layer.qkv_bias, qkv_width(), v_row(), kv);
    if (config_.head_norm == HeadNorm::NONE) return {};
    if (rest == "attn.q_norm.weight") return vector(layer.q_norm, D);
    if (rest == "attn.k_norm.weight") return vector(layer.k_norm, D);
    return {};
}

Model::Place Model::find_latent(Layer& layer, const std::string& rest) {
    const Latent& latent = *config_.latent;
    const int64_t dim = config_.dim, q = q_dim(), kv = latent.kv_rank + latent.rope_dim;
    if (rest == "attn.kv_a.weight") return matrix(layer.kv_a, kv, dim);
    if (rest == "attn.kv_a.bias") return vector(layer.kv_a_bias, kv);
    if (rest == "attn.kv_a_norm.weight") return vector(layer.kv_a_norm, latent.kv_rank);
    if (rest == "attn.kv_b.weight") {
        Place place = matrix(layer.k_up, config_.n_heads * (latent.nope_dim + latent.v_dim), latent.kv_rank);
        place.apart = &layer;
        return place;
    }
    if (latent.q_rank == 0) return rest == "attn.q.weight" ? matrix(layer.q, q, dim) : Place{};
    if (rest == "attn.q_a.weight") return matrix(layer.q_a, latent.q_rank, dim);
    if (rest == "attn.q_a.bias") return vector(layer.q_a_bias, latent.q_rank);
    if (rest == "attn.q_a_norm.weight") return vector(layer.q_a_norm, latent.q_rank);
    if (rest == "attn.q_b.weight") return matrix(layer.q, q, latent.q_rank);
    return {};
}

Model::Place Model::find_feed_forward(Layer& layer, int64_t index, std::string rest) {
    const int64_t dim = config_.dim, inter = dense_dim(index);
    const bool sparse = config_.layers[index].inter_dim == 0;
    if (rest == "mlp_norm.weight") return vector(layer.mlp_norm, dim);
    if (rest == "mlp_post_norm.weight" && config_.post_norms) return vector(layer.mlp_post_norm, dim);
    if (sparse) {
        const int64_t E = config_.experts->n_routed, F = config_.experts->inter_dim;
        if (rest == "mlp.router.weight") return part(layer.router, E * dim, 0, E, dim);
        if (rest == "mlp.router.expert_bias" && config_.experts->has_bias) return vector(layer.expert_bias, E);
        if (rest == "mlp.experts.gate") return matrix(layer.experts_gate, E * F, dim, E);
        if (rest == "mlp.experts.up") return matrix(layer.experts_up, E * F, dim, E);
        if (rest == "mlp.experts.down") return matrix(layer.experts_down, E * dim, F, E);
        const std::string shared = "mlp.shared.";
        if (inter == 0 || rest.rfind(shared, 0) != 0) return {};
        rest = "mlp." + rest.substr(shared.size());
    }
    if (rest == "mlp.gate.weight") return matrix(layer.gate, inter, dim);
    if (rest == "mlp.up.weight") return matrix(layer.up, inter, dim);
    if (rest == "mlp.gate.bias") return part(layer.gate_up_bias, gate_up_width(inter), 0, inter);
    if (rest == "mlp.up.bias") return part(layer.gate_up_bias, gate_up_width(inter), up_row(inter), inter);
    if (rest == "mlp.down.weight") return matrix(layer.down, dim, inter);
    if (rest == "mlp.down.bias") return vector(layer.down_bias, dim);
    return {};
}

template <typename Pack>
void Model::fill(const std::string& name, Panels& to, Coding coding, const Place& place, Pack pack) {
    const int64_t rows_each = place.n_rows / place.n_stacked, panels_each = (rows_each + PANEL - 1) / PANEL;
    if (to.n_blocks == 0 || to.coding != coding) {
        to = Panels();  // the old memory first
        to = Panels(coding, place.n_stacked == 1 ? rows_each : place.n_stacked * panels_each * PANEL, place.n_columns);
    }
    std::atomic<bool> finite{true};
    pool_.split(to.n_panels(), 1, [&](int thread, int64_t begin, int64_t end) {
        for (int64_t panel = begin; panel < end; panel++) {
            const int64_t within = panel % panels_each * PANEL, n = std::min(PANEL, rows_each - within);
            if (!pack(thread, panel, panel / panels_each * rows_each + within, n)) finite = false;
        }
    });
    if (!finite) throw std::overflow_error(name + " holds NaN or infinity");
    (&to == &embed_ || &to == &head_ ? in_head_ : in_layers_).add(to);
}

void Model::set(const std::string& name, const float* values, int64_t n_rows, int64_t n_columns, Coding coding) {
    const Place place = find(name, n_rows, n_columns);
    if (place.apart) return take_apart(name, values, coding, place);
    if (place.vector) {
        const int64_t n = n_rows * std::max<int64_t>(1, n_columns);
        if (!std::all_of(values, values + n, [](float x) { return std::isfinite(x); }))
            throw std::overflow_error(name + " holds NaN or infinity");
        place.vector->reserve(place.whole);
        std::memcpy(place.vector->get() + place.first, values, n * sizeof(float));
        return;
    }
    Panels& to = *place.matrix;
    fill(name, to, coding, place,
         [&](int, int64_t panel, int64_t row, int64_t n) { return k_.pack(values + row * n_columns, n, to, panel); });
}

// `kv_b` [n_heads, nope_dim + v_dim, kv_rank]: of each head the keys' rows, turned and as they are, and the values'.
void Model::take_apart(const std::string& name, const float* values, Coding coding, const Place& place) {
    const int64_t H = config_.n_heads, P = config_.latent->nope_dim, W = config_.latent->v_dim;
    const int64_t C = config_.latent->kv_rank;
    std::vector<float> turned(H * C * P), keys(H * P * C), kept(H * W * C);
    for (int64_t h = 0; h < H; h++) {
        const float* from = values + h * (P + W) * C;
        for (int64_t p = 0; p < P; p++)
            for (int64_t c = 0; c < C; c++) turned[(h * C + c) * P + p] = from[p * C + c];
        std::copy(from, from + P * C, keys.begin() + h * P * C);
        std::copy(from + P * C, from + (P + W) * C, kept.begin() + h * W * C);
    }
    auto put = [&](Panels& to, const std::vector<float>& rows, int64_t n_rows, int64_t n_columns) {
        fill(name, to, coding, matrix(to, n_rows, n_columns, H), [&](int, int64_t panel, int64_t row, int64_t n) {
            return k_.pack(rows.data() + row * n_columns, n, to, panel);
        });
    };
    put(place.apart->k_up, turned, H * C, P);
    put(place.apart->k_plain, keys, H * P, C);
    put(place.apart->v_up, kept, H * W, C);
}

void Model::set_blocks(const std::string& name, const BlockFormat& format, const uint8_t* rows, int64_t n_rows,
                       int64_t row_bytes) {
    const int64_t n_columns = row_bytes / format.bytes * format.columns;
    const Place place = find(name, n_rows, n_columns);
    if (place.apart || place.vector) throw std::invalid_argument(name + " is taken in fp32 alone");
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

std::vector<std::pair<const Panels*, double>> Model::matrices(int64_t index) const {
    const Layer& layer = layers_[index];
    std::vector<std::pair<const Panels*, double>> found{{&layer.q, 1.0}, {&layer.o, 1.0}};
    auto add = [&](std::initializer_list<const Panels*> weights, double share = 1.0) {
        for (const Panels* weight : weights) found.push_back({weight, share});
    };
    if (config_.latent) {
        add({&layer.kv_a, &layer.k_up, &layer.v_up});
        add({&layer.k_plain}, 0.0);  // of prompts alone
    } else {
        add({&layer.k, &layer.v});
    }
    if (config_.latent && config_.latent->q_rank) add({&layer.q_a});
    if (dense_dim(index)) add({&layer.gate, &layer.up, &layer.down});
    if (config_.layers[index].inter_dim == 0)
        add({&layer.experts_gate, &layer.experts_up, &layer.experts_down},
            static_cast<double>(config_.experts->n_active) / config_.experts->n_routed);
    return found;
}

void Model::require_weights() const {
    auto require = [](bool there) {
        if (!there) throw std::logic_error("a weight has not been set");
    };
    require(embed_.N && norm_.size() && (config_.tied_head || head_.N));
    for (int64_t index = 0; index < config_.n_blocks(); index++) {
        const Layer& layer = layers_[index];
        for (const auto& [weight, share] : matrices(index)) require(weight->N);
        require(index < config_.n_layers() ||
                (layer.embed_norm.size() && layer.hidden_norm.size() && layer.norm.size() && layer.proj.N));
        require(layer.attn_norm.size() && layer.mlp_norm.size());
        require(!config_.post_norms || (layer.attn_post_norm.size() && layer.mlp_post_norm.size()));
        require(config_.latent || config_.head_norm == HeadNorm::NONE || (layer.q_norm.size() && layer.k_norm.size()));
        require(!config_.latent || (layer.kv_a_norm.size() && (!config_.latent->q_rank || layer.q_a_norm.size())));
        require(config_.layers[index].inter_dim ||
                (layer.router.size() && (!config_.experts->has_bias || layer.expert_bias.size())));
    }
}

int64_t Model::weight_bytes() const {
    double n = (config_.tied_head ? embed_ : head_).data.size();
    for (int64_t index = 0; index < config_.n_layers(); index++) {
        for (const auto& [weight, share] : matrices(index)) n += share * weight->data.size();
        n += layers_[index].router.size() * sizeof(float);
    }
    return static_cast<int64_t>(n);
}

}  // namespace smallpress
