// The arithmetic, once for each instruction set. Every table computes the same functions; `kernels()` picks one.

#pragma once

#include <cstdint>
#include <string>

#include "latent.h"
#include "panels.h"
#include "training.h"

namespace smallpress {

constexpr int64_t LANES = 16;
constexpr int64_t SUMMED = 256;  // weights of the sampler that are summed in fp32 before fp64 takes over

// How weights are read from memory: as so many streams a thread, which one core can follow faster than a single one,
// each asked for so many bytes ahead, because what the processor does by itself ends at each page.
constexpr int STREAMS = 4;
constexpr int64_t AHEAD = 1024;

constexpr int64_t CHUNKS_AT_ONCE = 8;  // of sixteen tokens each, of a cache in 8 bits

SMALLPRESS_INLINE constexpr int64_t score_width(int64_t length) { return round_up(length, LANES) + LANES; }

// Queries of one sequence under one kv head's group, one after another, over the keys and values before and at them.
struct Attention {
    // [n_rows, group, head_dim], `stride` and `out_stride` floats from one row to the next.
    const float* q;
    float* out;
    int64_t stride, out_stride, n_rows;
    int64_t length;  // tokens that the first row attends to; each row after it attends to one more
    int64_t page_size, group, head_dim;
    // As in kv_page.h, readable a line beyond their end.
    const uint8_t *const *key_pages, *const *value_pages;
    // Room to work in: score_room(), narrow_room() and chunk_room() of the longest row.
    float* scores;
    uint16_t* narrow;
    const uint8_t** chunks;
    int64_t window = 0;       // only the last so many of a row's tokens count; 0: all
    bool eight_bits = false;  // the pages
};

SMALLPRESS_INLINE constexpr int64_t rows_at_once(int64_t group) { return group > LANES ? group : LANES; }
SMALLPRESS_INLINE constexpr int64_t score_room(int64_t group, int64_t longest) {
    return rows_at_once(group) * score_width(longest);
}
SMALLPRESS_INLINE constexpr int64_t narrow_room(int64_t group, int64_t longest, int64_t head_dim) {
    return rows_at_once(group) * ((2 + CHUNKS_AT_ONCE) * head_dim + LANES + 2 * score_width(longest));
}
SMALLPRESS_INLINE constexpr int64_t chunk_room(int64_t longest) { return longest / LANES + 1; }

// attend() of a single row in parts, for threads to share: all of one before any of the next. `scores` has
// score_width(length) floats for each head of the group, `narrow` twice as many numbers and `inverse` one.
struct AttentionInParts {
    // Keys of tiles of LANES tokens, in `room` for the group's queries and LANES more.
    void (*score)(const Attention& row, int64_t first_tile, int64_t last_tile, uint16_t* room);
    void (*weigh)(const Attention& row, int64_t head, float* inverse);
    void (*mix)(const Attention& row, int64_t first_column, int64_t last_column, const float* inverse);
};

enum class Store { SET, ADD };

struct Kernels {
    const char* name;

    // Row `row` of the activations in 8 bits, or in bf16, from n floats; what fills up the last block counts as zero.
    void (*quantize)(const float* x, int64_t n, const Activations& to, int64_t row);
    void (*narrow)(const float* x, int64_t n, const Activations& to, int64_t row);

    // out = x * weight / sqrt(mean(x^2) + eps)
    void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps, float* out);

    // out = silu(gate) * up
    void (*swiglu)(const float* gate, const float* up, int64_t n, float* out);

    // Encode a panel of at most 16 rows of fp32 weights, [n_rows, K], as Q8, Q4_1 or BF16. False where one of them is
    // not finite, or a scale too large for fp16.
    bool (*pack)(const float* weight, int64_t n_rows, const Panels& to, int64_t panel);

    // out[m, n] (=, +=) activations[m] . weight[n] for all M rows and the rows of panels [first, last);
    // `stride` floats from one m to the next.
    void (*product)(const Activations& x, int64_t M, const Panels& w, int64_t first, int64_t last, float* out,
                    int64_t stride, Store store);

    void (*attend)(const Attention& queries);

    // bf16 of n floats, rounded to nearest even.
    void (*to_bf16)(const float* x, int64_t n, uint16_t* out);

    // The largest of n logits; NaN where one of them is not finite.
    float (*largest)(const float* x, int64_t n);

    // weights = exp((x - best) / temperature); their sums, SUMMED of them each; returns the sum of those.
    double (*weigh)(const float* x, int64_t n, float best, float inverse_temperature, float* weights, double* sums);

    // n rounds of 8-bit products on registers alone; returns how many multiply-adds they were.
    int64_t (*exercise)(int64_t n);

    const Training* training;

    // out = gelu(gate) * up, gelu by its tanh formula: gate / (1 + exp(-2 sqrt(2 / pi) (gate + 0.044715 gate^3))).
    void (*geglu)(const float* gate, const float* up, int64_t n, float* out);

    // out[i] = x . w[i], in fp32; w [n_rows, n].
    void (*dots)(const float* x, const float* w, int64_t n_rows, int64_t n, float* out);

    void (*attend_latent)(const LatentSpan& span);

    // Of a low-rank adapter, in fp32: out[r] = x . a[r], and out += sum of x[r] b[r]; a and b are [rank, n] in bf16,
    // their rows filled up to LANES with zeros.
    void (*narrow_dots)(const float* x, const uint16_t* a, int64_t rank, int64_t n, float* out);
    void (*widen_add)(const float* x, const uint16_t* b, int64_t rank, int64_t n, float* out);

    const AttentionInParts* in_parts;  // null where attend() adds up otherwise
};

// The best table this processor can run, or the one named; throws std::invalid_argument where it cannot.
const Kernels& kernels(const std::string& name = "");

// Whether this processor can run the table of that name; false for names there are not.
bool can_run(const std::string& name);

}  // namespace smallpress
