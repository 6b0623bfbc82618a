// Attention over a tree of tokens, for training (model/attention.py): segments of a row, each of which sees its
// ancestors whole and itself up to the token that asks. All in fp32.

#pragma once

#include <cstdint>

#include "panels.h"

namespace smallpress {

// Queries of one segment, one after another, under one head of keys and values; rows of all arrays but the last are
// `stride` numbers apart.
struct TreeBlock {
    static constexpr int MOST_PARTS = 3;  // a prefix, a prompt, an answer

    // Tokens that are seen: the ancestors' all, of the last part one more by each row.
    struct Part {
        int64_t length;
        const float *keys, *values;                // [length, width], of `key_stride`, `value_stride`
        const float *key_columns, *value_columns;  // as tree_columns() lays them
        float *key_gradient, *value_gradient;      // added to, of strides of their own
        int64_t key_gradient_stride, value_gradient_stride;
    };

    Part parts[MOST_PARTS];
    int n_parts;
    int64_t n_rows, group, key_dim, value_dim;  // dimensions are multiples of 16
    int64_t seen;                               // tokens of the last part that the first row sees
    float scale;
    const float* q;  // [n_rows, group, key_dim]
    int64_t q_stride, key_stride, value_stride, out_stride, lse_stride;
    float *out, *lse;           // [n_rows, group, value_dim] and [n_rows, group]: log of the sum of exp(score)
    const float* out_gradient;  // as out
    float* q_gradient;          // as q, written
    float* room;                // tree_room() of it
};

SMALLPRESS_INLINE constexpr int64_t tree_width(int64_t length) { return (length + 15) / 16 * 16; }

// Floats that a block needs whose parts have so many columns, each filled up to tree_width().
SMALLPRESS_INLINE constexpr int64_t tree_room(int64_t n_rows, int64_t group, int64_t columns, int64_t widest) {
    return n_rows * group * (2 * columns + 3 * widest + 1);
}

}  // namespace smallpress
