// What a model is: the same as src/smallpress/model/config.py, in numbers alone.

#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace smallpress {

enum class HeadNorm { NONE, BEFORE_ROPE, AFTER_ROPE };

// How fast the pairs of a head turn.
struct Rope {
    std::vector<double> turns;  // radians a position, one for each pair
    double gain = 1.0;          // of cos and sin
    // Dynamic NTK: the n-th token of a sequence, n above the length, turns as if the base were
    // (factor n / length - factor + 1)^(d / (d - 2)) times as large. A length of 0: never.
    double ntk_factor = 1.0, ntk_length = 0.0;
};

// Latent attention; a q_rank of 0: queries come straight from the stream.
struct Latent {
    int64_t q_rank, kv_rank, nope_dim, rope_dim, v_dim;
    float norm_eps;
};

struct Experts {
    int64_t n_routed, n_active, inter_dim;
    int64_t shared_dim;  // of all shared ones together; 0: none
    int64_t n_groups, n_active_groups;
    bool sigmoid, has_bias, best_two, normalize;  // best_two: a group is as good as its two best experts together
    double scale;
};

struct LayerKind {
    int64_t inter_dim = 0;  // of the dense feed-forward; 0: experts
    int64_t window = 0;     // tokens a query sees, itself among them; 0: all
    int64_t rope = 0;       // which of the ropes
    bool gelu = false;      // in gates, else silu
};

struct Config {
    int64_t dim, n_heads, n_kv_heads, head_dim, vocab_size;
    float norm_eps;
    bool tied_head;
    std::vector<LayerKind> layers{};  // those of the MTP modules last
    std::vector<Rope> ropes{};
    bool interleaved = false;  // neighbours turn together, else halves
    HeadNorm head_norm = HeadNorm::NONE;
    bool post_norms = false;
    float embed_scale = 1.0f;
    float score_scale = 0.0f;  // of the scores; 0: head_dim^-0.5
    std::optional<Latent> latent{};
    std::optional<Experts> experts{};
    int64_t n_modules = 0;      // of multi-token prediction
    bool hidden_first = false;  // in what a module projects, else the embedding

    int64_t n_layers() const { return n_blocks() - n_modules; }
    int64_t n_blocks() const { return static_cast<int64_t>(layers.size()); }  // layers and modules
    int64_t rope_dim() const { return latent ? latent->rope_dim : head_dim; }
};

}  // namespace smallpress
