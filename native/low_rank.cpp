// Low-rank adapters: y += B A x in fp32, added for the rows of a step that ask for it, whichever adapter each asks for.
// What a row gets depends on that row alone, so it is the same alone and in a batch.

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "model.h"

namespace smallpress {

int64_t Model::add_adapter() {
    adapters_.emplace_back();
    adapters_.back().layers.resize(config_.n_layers());
    return n_adapters();
}

void Model::set_low_rank(int64_t adapter, const std::string& name, const float* a, const float* b, int64_t rank,
                         int64_t n_in, int64_t n_out) {
    const Place place = find(name + ".weight", n_out, n_in);
    auto all_finite = [](const float* x, int64_t n) {
        return std::all_of(x, x + n, [](float v) { return std::isfinite(v); });
    };
    if (!all_finite(a, rank * n_in) || !all_finite(b, n_out * rank))
        throw std::overflow_error("an adapter of " + name + " holds NaN or infinity");
    for (int64_t index = 0; index < config_.n_layers(); index++) {
        for (int product = config_.latent ? O : Q; product < N_ADAPTED; product++) {
            if (place.matrix != &(layers_[index].*ADAPTED[product])) continue;
            LowRank& to = adapters_[adapter - 1].layers[index][product];
            to = {rank, n_in, n_out, Buffer<uint16_t>(rank * round_up(n_in, LANES)),
                  Buffer<uint16_t>(rank * round_up(n_out, LANES))};
            std::vector<float> turned(n_out);
            for (int64_t r = 0; r < rank; r++) {
                for (int64_t i = 0; i < n_out; i++) turned[i] = b[i * rank + r];
                k_.to_bf16(a + r * n_in, n_in, to.a.get() + r * round_up(n_in, LANES));
                k_.to_bf16(turned.data(), n_out, to.b.get() + r * round_up(n_out, LANES));
            }
            widest_ = std::max(widest_, 3 * rank);
            return;
        }
    }
    throw std::invalid_argument("no adapter is added to " + name);
}

void Model::choose_adapters(const int64_t* adapters, int64_t N) {
    const bool any = adapters && std::any_of(adapters, adapters + N, [](int64_t one) { return one > 0; });
    asked_ = any ? adapters : nullptr;
    if (any) narrow_rows_.reserve(N * widest_);
}

const Model::LowRank* Model::low_rank(Adapted products, int64_t n) const {
    return asked_ && asked_[n] ? &adapters_[asked_[n] - 1].layers[products.layer][products.first] : nullptr;
}

void Model::low_rank_in(Adapted products, int64_t n, const float* x) {
    const LowRank* pairs = low_rank(products, n);
    if (!pairs) return;
    float* to = narrow_rows_.get() + n * widest_;
    for (int i = 0; i < products.n; to += pairs[i++].rank)
        k_.narrow_dots(x, pairs[i].a.get(), pairs[i].rank, pairs[i].n_in, to);
}

void Model::low_rank_out(Adapted products, int64_t n, std::initializer_list<float*> outs) {
    const LowRank* pairs = low_rank(products, n);
    if (!pairs) return;
    const float* from = narrow_rows_.get() + n * widest_;
    for (float* out : outs) {
        k_.widen_add(from, pairs->b.get(), pairs->rank, pairs->n_out, out);
        from += (pairs++)->rank;
    }
}

}  // namespace smallpress
