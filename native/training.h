// What training adds to the arithmetic: the optimizer's step, and products whose factors are both quantized for them.

#pragma once

#include <cstdint>

#include "panels.h"
#include "tree.h"

namespace smallpress {

constexpr int64_t QUANT_BLOCK = 256;  // values of a moment in 8 bits that share a scale

// The map of lowbit/dynamic_map.py, and how to find the nearest code without a search. Ranks count the values from 0
// upwards: those of a level stand at equal distances, so within it the rank of y is slope * y + start, cut to a whole
// number; with a sign half less, so that cutting does the same on both sides of 0.
// Level 0 is the value 0, 1 to 7 are the decades, 8 is the value 1; y belongs to a level above its limit.
struct DynamicMap {
    static constexpr int N_LEVELS = 9, ROOM = 16;

    float values[256];
    bool has_sign;
    int zero;  // the code of 0
    float limits[ROOM] = {}, slopes[ROOM] = {}, starts[ROOM] = {}, lasts[ROOM] = {};

    DynamicMap(const float* values, bool has_sign);
};

enum class Moments { FP32, BF16, DYNAMIC };

// Of one tensor's block: a moment is n floats, n bf16 numbers, or n codes and their one scale.
struct MomentBlock {
    void* numbers;
    float* scale;
};

// AdamW at one step: `first_share` is 1 - beta1, `second_share` 1 - beta2, `second_kept` beta2, `shrink` 1 - lr *
// weight decay, `stride` lr / (1 - beta1^step), `correction` 1 / sqrt(1 - beta2^step).
struct AdamW {
    float first_share, second_share, second_kept, eps, shrink, stride, correction;
};

// A matrix [n_rows, n_columns] of fp32 or bf16 numbers. Columns are those summed over in a product; `turned`, a row's
// numbers stand `stride` apart and a column's side by side.
struct Factor {
    const void* numbers;
    bool is_bf16, turned;
    int64_t n_rows, n_columns, stride;
};

// A matrix in 8 bits, scale * code. Rows are taken 16 at a time (a tile), columns 64 at a time (a step); a number of
// steps of a row shares a scale. A left factor has its codes row by row, [tile, step, row, 64]; a right one in quads of
// columns, [tile, step, 64 / 4, row, 4]. Scales are [tile, span, row]; so is what a left factor's products have too
// much where a right one's codes are taken 128 higher. What fills up tiles and steps has code 0.
struct Operand {
    static constexpr int64_t ROWS = 16, STEP = 64, BYTES = ROWS * STEP;
    static constexpr int64_t BLOCK_TILES = 8;  // of one scale, where rows share it too: 128 rows

    bool is_right = false, shared_by_rows = false;
    int64_t n_rows = 0, n_columns = 0, n_tiles = 0, n_steps = 0, span = 0, n_spans = 0;
    Buffer<int8_t> code_data;
    Buffer<float> scale_data;
    Buffer<int32_t> surplus_data;

    // `columns` of them share a scale: a multiple of STEP.
    void reserve(bool right, bool by_rows, int64_t rows, int64_t all_columns, int64_t columns) {
        is_right = right, shared_by_rows = by_rows, n_rows = rows, n_columns = all_columns;
        n_tiles = round_up((rows + ROWS - 1) / ROWS, 2), n_steps = (all_columns + STEP - 1) / STEP;
        span = columns / STEP, n_spans = (n_steps + span - 1) / span;
        code_data.reserve(n_tiles * n_steps * BYTES);
        scale_data.reserve(n_tiles * n_spans * ROWS);
        if (!right) surplus_data.reserve(n_tiles * n_spans * ROWS);
    }
    SMALLPRESS_INLINE int8_t* codes(int64_t tile, int64_t step) const {
        return code_data.get() + (tile * n_steps + step) * BYTES;
    }
    SMALLPRESS_INLINE float* scales(int64_t tile, int64_t s) const {
        return scale_data.get() + (tile * n_spans + s) * ROWS;
    }
    SMALLPRESS_INLINE int32_t* surplus(int64_t tile, int64_t s) const {
        return surplus_data.get() + (tile * n_spans + s) * ROWS;
    }
};

// Where a product goes: fp32 or bf16, rows `stride` numbers apart.
struct Output {
    void* numbers;
    bool is_bf16;
    int64_t stride;
};

struct Training {
    // One step of the n <= QUANT_BLOCK parameters of a block, in place. Moments are read, moved towards the gradient
    // and used in fp32; then stored. What is not finite makes the scale of its block NaN.
    void (*adamw)(const AdamW& step, const DynamicMap& first_map, const DynamicMap& second_map, Moments format,
                  MomentBlock first, MomentBlock second, const float* gradient, int64_t n, float* parameters);

    // Codes and scales, max|x| / 127, of the tiles [first, last): whole blocks of them where rows share scales. A span
    // with a number that is not finite has the scale NaN.
    void (*encode)(const Factor& x, const Operand& to, int64_t first, int64_t last);

    // out[m, n] = left row m . right row n, for all m and the rows of the right tiles [first, last), even numbers.
    // Within a span in whole numbers, over spans in fp32.
    void (*multiply)(const Operand& left, const Operand& right, int64_t first, int64_t last, const Output& out);

    // Tokens [0, length) of x, `stride` apart, sixteen side by side: [tree_width(length) / 16, width, 16].
    void (*tree_columns)(const float* x, int64_t length, int64_t stride, int64_t width, float* to);
    void (*tree_forward)(const TreeBlock& block);
    void (*tree_backward)(const TreeBlock& block);
};

}  // namespace smallpress
