// A page of one kv head: its keys or its values, in bf16 or as codes of 8 bits with a scale for each token.

#pragma once

#include <cmath>
#include <cstdint>

#include "kernels.h"

namespace smallpress {

// Keys lie [page_size / LANES rounded up, head_dim / 2, LANES tokens, 2], values [page_size / 2 rounded up, head_dim,
// 2 tokens]; in 8 bits the tokens' scales in fp32 follow.
struct KVPage {
    int64_t head_dim, page_size;
    bool eight_bits;

    int64_t n_entries() const { return head_dim * round_up(page_size, LANES); }
    int64_t n_bytes() const {
        return eight_bits ? n_entries() + round_up(page_size, LANES) * static_cast<int64_t>(sizeof(float))
                          : n_entries() * static_cast<int64_t>(sizeof(uint16_t));
    }

    // Token `place` of the page is `x`, [head_dim]; `narrow` is room for as many.
    void put_key(const Kernels& k, const float* x, int64_t place, uint16_t* narrow, uint8_t* page) const {
        put(k, x, place, narrow, page,
            [&](int64_t d) { return (place / LANES * head_dim + d / 2 * 2) * LANES + place % LANES * 2 + d % 2; });
    }
    void put_value(const Kernels& k, const float* x, int64_t place, uint16_t* narrow, uint8_t* page) const {
        put(k, x, place, narrow, page, [&](int64_t d) { return (place / 2 * head_dim + d) * 2 + place % 2; });
    }

private:
    template <typename At>
    void put(const Kernels& k, const float* x, int64_t place, uint16_t* narrow, uint8_t* page, At at) const {
        if (!eight_bits) {
            k.to_bf16(x, head_dim, narrow);
            for (int64_t d = 0; d < head_dim; d++) reinterpret_cast<uint16_t*>(page)[at(d)] = narrow[d];
            return;
        }
        float largest = 0.0f;
        for (int64_t d = 0; d < head_dim; d++) largest = std::fabs(x[d]) > largest ? std::fabs(x[d]) : largest;
        bool finite = std::isfinite(largest);
        for (int64_t d = 0; d < head_dim; d++) finite = finite && !std::isnan(x[d]);
        const float inverse = finite && largest > 0.0f ? 127.0f / largest : 0.0f;
        for (int64_t d = 0; d < head_dim; d++)
            reinterpret_cast<int8_t*>(page)[at(d)] =
                inverse > 0.0f ? static_cast<int8_t>(std::lrintf(x[d] * inverse)) : 0;
        // What is not finite stays so: a step that fails says so by its logits.
        reinterpret_cast<float*>(page + n_entries())[place] = finite ? largest / 127.0f : NAN;
    }
};

}  // namespace smallpress
