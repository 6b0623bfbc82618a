// What training adds to the arithmetic: the optimizer's step.

#pragma once

#include <cstdint>

#include "panels.h"

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

struct Training {
    // One step of the n <= QUANT_BLOCK parameters of a block, in place. Moments are read, moved towards the gradient
    // and used in fp32; then stored. What is not finite makes the scale of its block NaN.
    void (*adamw)(const AdamW& step, const DynamicMap& first_map, const DynamicMap& second_map, Moments format,
                  MomentBlock first, MomentBlock second, const float* gradient, int64_t n, float* parameters);
};

}  // namespace smallpress
