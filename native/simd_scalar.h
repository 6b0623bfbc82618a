// Sixteen lanes in plain C++: the reference, and the path of every processor without one of its own.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "half.h"

namespace {

struct F16 {
    float v[16];
};
struct I16 {
    int32_t v[16];
};
using Bytes = const uint8_t*;

template <typename Op>
inline F16 each(Op op) {
    F16 out;
    for (int i = 0; i < 16; i++) out.v[i] = op(i);
    return out;
}

inline F16 set1(float x) {
    return each([&](int) { return x; });
}
inline F16 load(const float* p) {
    return each([&](int i) { return p[i]; });
}
inline void store(float* p, F16 x) { std::memcpy(p, x.v, sizeof x.v); }
inline F16 add(F16 a, F16 b) {
    return each([&](int i) { return a.v[i] + b.v[i]; });
}
inline F16 sub(F16 a, F16 b) {
    return each([&](int i) { return a.v[i] - b.v[i]; });
}
inline F16 mul(F16 a, F16 b) {
    return each([&](int i) { return a.v[i] * b.v[i]; });
}
inline F16 div(F16 a, F16 b) {
    return each([&](int i) { return a.v[i] / b.v[i]; });
}
inline F16 fma(F16 a, F16 b, F16 c) {
    return each([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}
inline F16 max(F16 a, F16 b) {
    return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline F16 min(F16 a, F16 b) {
    return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
// y where x > limit, else 0.
inline F16 where_above(F16 x, F16 limit, F16 y) {
    return each([&](int i) { return x.v[i] > limit.v[i] ? y.v[i] : 0.0f; });
}
inline F16 abs(F16 a) {
    return each([&](int i) { return std::fabs(a.v[i]); });
}
inline F16 round(F16 a) {
    return each([&](int i) { return std::nearbyintf(a.v[i]); });
}
// 2^n for whole n in [-126, 127].
inline F16 pow2(F16 n) {
    return each([&](int i) { return float_of((static_cast<int32_t>(n.v[i]) + 127) << 23); });
}
inline float sum(F16 a) {
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++) a.v[i] += a.v[i + half];
    return a.v[0];
}
inline float largest_of(F16 a) {
    float best = a.v[0];
    for (float x : a.v) best = x > best ? x : best;
    return best;
}

inline F16 load_half(const uint16_t* p) {
    return each([&](int i) { return half_to_float(p[i]); });
}
inline F16 load_bf16(const uint16_t* p) {
    return each([&](int i) { return float_of(static_cast<uint32_t>(p[i]) << 16); });
}
inline uint16_t bf16_of(float x) {
    const uint32_t bits = bits_of(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 64);  // NaN stays one
    return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
inline void store_bf16(uint16_t* p, F16 x) {
    for (int i = 0; i < 16; i++) p[i] = bf16_of(x.v[i]);
}
// Whole numbers in [-127, 127].
inline void store_int8(int8_t* p, F16 x) {
    for (int i = 0; i < 16; i++) p[i] = static_cast<int8_t>(x.v[i]);
}

inline I16 iset1(int32_t x) {
    I16 out;
    for (int32_t& lane : out.v) lane = x;
    return out;
}
inline F16 to_float(I16 a) {
    return each([&](int i) { return static_cast<float>(a.v[i]); });
}
inline Bytes load_bytes(const uint8_t* p) { return p; }
// Each lane: its four unsigned bytes of w times the four signed bytes at a, added to acc.
inline I16 dot4(I16 acc, Bytes w, const int8_t* a) {
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 4; j++) acc.v[i] += static_cast<int32_t>(w[4 * i + j]) * a[j];
    return acc;
}

constexpr int64_t ROWS = 4;  // activations that share one pass over a panel

}  // namespace
