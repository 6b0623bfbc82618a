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
struct Bytes {
    uint8_t v[64];
};

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
// Lane i of it is lane i ^ S of a; S is 1, 2, 4 or 8.
template <int S>
inline F16 swapped(F16 a) {
    return each([&](int i) { return a.v[i ^ S]; });
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

template <typename Op>
inline I16 each_int(Op op) {
    I16 out;
    for (int i = 0; i < 16; i++) out.v[i] = op(i);
    return out;
}
inline I16 iset1(int32_t x) {
    return each_int([&](int) { return x; });
}
inline I16 iadd(I16 a, I16 b) {
    return each_int([&](int i) { return a.v[i] + b.v[i]; });
}
template <int BITS>
inline I16 shift_left(I16 a) {
    return each_int([&](int i) { return a.v[i] * (1 << BITS); });
}
inline F16 to_float(I16 a) {
    return each([&](int i) { return static_cast<float>(a.v[i]); });
}
template <typename Op>
inline Bytes each_byte(Bytes x, Op op) {
    for (uint8_t& byte : x.v) byte = op(byte);
    return x;
}
inline Bytes load_bytes(const uint8_t* p) {
    Bytes out;
    std::memcpy(out.v, p, 64);
    return out;
}
inline Bytes load_pairs(const uint16_t* p) {
    Bytes out;
    std::memcpy(out.v, p, 64);
    return out;
}
inline Bytes low_nibbles(Bytes x) {
    return each_byte(x, [](uint8_t byte) { return static_cast<uint8_t>(byte & 15); });
}
inline Bytes high_nibbles(Bytes x) {
    return each_byte(x, [](uint8_t byte) { return static_cast<uint8_t>(byte >> 4); });
}
// Codes of weights as dot4 wants them. With SHIFTED without a sign, 128 above what they stand for.
inline Bytes load_codes(const uint8_t* p) { return load_bytes(p); }
// Each lane: its four bytes of w, signed but with SHIFTED, times the four signed bytes at a, added to acc.
inline I16 dot4(I16 acc, Bytes w, const void* a) {
    int8_t quad[4];
    std::memcpy(quad, a, 4);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 4; j++) acc.v[i] += static_cast<int32_t>(static_cast<int8_t>(w.v[4 * i + j])) * quad[j];
    return acc;
}

// Four bytes that dot4 takes many times.
inline const void* held(const void* a) { return a; }

// Each lane: its two bf16 numbers of w times the two at a, added to acc.
inline F16 dot2(F16 acc, Bytes w, const uint16_t* a) {
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 2; j++) {
            uint16_t half;
            std::memcpy(&half, w.v + 4 * i + 2 * j, 2);
            acc.v[i] += float_of(static_cast<uint32_t>(half) << 16) * float_of(static_cast<uint32_t>(a[j]) << 16);
        }
    return acc;
}

constexpr bool SHIFTED = false;
constexpr int64_t ROWS = 4, ROWS_IN_8_BITS = ROWS;  // activations that share one pass over a panel
constexpr int AT_ONCE = 1;  // groups of lanes of keys or values that attention works on at a time

}  // namespace

#include "simd_parts.h"
