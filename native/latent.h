// Latent attention in its absorbed form: all heads read one row a token as their key, and its beginning as their value.

#pragma once

#include <cstdint>

namespace smallpress {

constexpr int64_t LATENT_HEADS = 16;  // that are computed together, one in each lane
constexpr int64_t LATENT_SPAN = 512;  // tokens that are, at most

// One query of up to 16 heads over some tokens of a sequence. What it gives can be put together with what other spans
// of the same query give: see merge().
struct LatentSpan {
    const uint16_t* q;             // [width / 2, LATENT_HEADS, 2] in bf16, scaled
    const uint16_t* const* pages;  // of the sequence; each [page_size, width] in bf16, readable a line beyond its end
    int64_t page_size, width, rank, n_heads;
    int64_t first, last;  // the tokens: [first, last)
    float* weights;       // room for [LATENT_SPAN, LATENT_HEADS]
    // For each head the largest score, the sum of exp(score - largest), and [LATENT_HEADS, rank] the sum of that times
    // the first `rank` numbers of the row. Heads from n_heads on: anything.
    float *peaks, *sums, *mix;
};

}  // namespace smallpress
