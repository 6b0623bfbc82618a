// A model's config as Python hands it over: dicts of numbers, which engine/native_config.py makes.

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>

#include "config.h"

namespace nb = nanobind;
using namespace smallpress;

namespace {

template <typename T>
T get(const nb::dict& from, const char* key) {
    return nb::cast<T>(from[key]);
}

int64_t size(const nb::dict& from, const char* key, int64_t least = 1) {
    const int64_t found = get<int64_t>(from, key);
    if (found < least) throw std::invalid_argument(std::string(key) + " is too small");
    return found;
}

HeadNorm head_norm(const std::string& name) {
    if (name == "before_rope") return HeadNorm::BEFORE_ROPE;
    if (name == "after_rope") return HeadNorm::AFTER_ROPE;
    if (!name.empty()) throw std::invalid_argument("there is no norm of heads " + name);
    return HeadNorm::NONE;
}

Latent latent(const nb::dict& from) {
    return {size(from, "q_rank", 0),   size(from, "kv_rank"), size(from, "nope_dim"),
            size(from, "rope_dim", 2), size(from, "v_dim"),   get<float>(from, "norm_eps")};
}

Experts experts(const nb::dict& from) {
    const Experts found{size(from, "n_routed"),       size(from, "n_active"),      size(from, "inter_dim"),
                        size(from, "shared_dim", 0),  size(from, "n_groups"),      size(from, "n_active_groups"),
                        get<bool>(from, "sigmoid"),   get<bool>(from, "has_bias"), get<bool>(from, "best_two"),
                        get<bool>(from, "normalize"), get<double>(from, "scale")};
    if (found.n_routed % found.n_groups || found.n_active_groups > found.n_groups ||
        found.n_active > found.n_routed / found.n_groups * found.n_active_groups)
        throw std::invalid_argument("the experts of a token cannot be chosen");
    return found;
}

}  // namespace

Config config_of(const nb::dict& from) {
    Config config{size(from, "dim"),           size(from, "n_heads"),    size(from, "n_kv_heads"),
                  size(from, "head_dim"),      size(from, "vocab_size"), get<float>(from, "norm_eps"),
                  get<bool>(from, "tied_head")};
    for (const nb::dict& layer : get<std::vector<nb::dict>>(from, "layers"))
        config.layers.push_back(
            {size(layer, "inter_dim", 0), size(layer, "window", 0), size(layer, "rope", 0), get<bool>(layer, "gelu")});
    for (const nb::dict& rope : get<std::vector<nb::dict>>(from, "ropes"))
        config.ropes.push_back({get<std::vector<double>>(rope, "turns"), get<double>(rope, "gain"),
                                get<double>(rope, "ntk_factor"), get<double>(rope, "ntk_length")});
    config.interleaved = get<bool>(from, "interleaved");
    config.head_norm = head_norm(get<std::string>(from, "head_norm"));
    config.post_norms = get<bool>(from, "post_norms");
    config.embed_scale = get<float>(from, "embed_scale");
    config.score_scale = get<float>(from, "score_scale");
    if (!from["latent"].is_none()) config.latent = latent(get<nb::dict>(from, "latent"));
    if (!from["experts"].is_none()) config.experts = experts(get<nb::dict>(from, "experts"));
    config.n_modules = size(from, "n_modules", 0);
    config.hidden_first = get<bool>(from, "hidden_first");
    return config;
}
