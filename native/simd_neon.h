// Sixteen lanes in four registers: NEON, as every 64-bit Arm processor has it, with its dot products and its products
// of 8-bit matrices where they are.

#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace {

struct F16 {
    float32x4_t v[4];
};
struct I16 {
    int32x4_t v[4];
};
struct Bytes {
    int8x16_t v[4];
};

template <typename Op>
inline F16 each(Op op) {
    return {{op(0), op(1), op(2), op(3)}};
}

inline F16 set1(float x) {
    const float32x4_t four = vdupq_n_f32(x);
    return {{four, four, four, four}};
}
inline F16 load(const float* p) {
    return each([&](int i) { return vld1q_f32(p + 4 * i); });
}
inline void store(float* p, F16 x) {
    for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, x.v[i]);
}
inline F16 add(F16 a, F16 b) {
    return each([&](int i) { return vaddq_f32(a.v[i], b.v[i]); });
}
inline F16 sub(F16 a, F16 b) {
    return each([&](int i) { return vsubq_f32(a.v[i], b.v[i]); });
}
inline F16 mul(F16 a, F16 b) {
    return each([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
}
inline F16 div(F16 a, F16 b) {
    return each([&](int i) { return vdivq_f32(a.v[i], b.v[i]); });
}
inline F16 fma(F16 a, F16 b, F16 c) {
    return each([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
}
inline F16 max(F16 a, F16 b) {
    return each([&](int i) { return vmaxq_f32(a.v[i], b.v[i]); });
}
inline F16 min(F16 a, F16 b) {
    return each([&](int i) { return vminq_f32(a.v[i], b.v[i]); });
}
inline F16 where_above(F16 x, F16 limit, F16 y) {
    return each([&](int i) {
        const uint32x4_t above = vcgtq_f32(x.v[i], limit.v[i]);
        return vreinterpretq_f32_u32(vandq_u32(above, vreinterpretq_u32_f32(y.v[i])));
    });
}
inline F16 abs(F16 a) {
    return each([&](int i) { return vabsq_f32(a.v[i]); });
}
template <int S>
inline F16 swapped(F16 a) {
    return each([&](int i) {
        if constexpr (S == 1) return vrev64q_f32(a.v[i]);
        if constexpr (S == 2) return vextq_f32(a.v[i], a.v[i], 2);
        return a.v[i ^ S / 4];
    });
}
inline F16 round(F16 a) {
    return each([&](int i) { return vrndnq_f32(a.v[i]); });
}
inline F16 pow2(F16 n) {
    return each([&](int i) {
        const int32x4_t biased = vaddq_s32(vcvtq_s32_f32(n.v[i]), vdupq_n_s32(127));
        return vreinterpretq_f32_s32(vshlq_n_s32(biased, 23));
    });
}
inline float sum(F16 a) {
    const float32x4_t four = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
    return vaddv_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)));
}
inline float largest_of(F16 a) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3]))); }

inline F16 load_half(const uint16_t* p) {
    return each([&](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); });
}
inline F16 load_bf16(const uint16_t* p) {
    return each([&](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)); });
}
inline void store_bf16(uint16_t* p, F16 x) {
    for (int i = 0; i < 4; i++) {
        const uint32x4_t bits = vreinterpretq_u32_f32(x.v[i]), number = vceqq_f32(x.v[i], x.v[i]);
        const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
        const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
        const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
        vst1_u16(p + 4 * i, vshrn_n_u32(vbslq_u32(number, rounded, quiet), 16));
    }
}
inline void store_int8(int8_t* p, F16 x) {
    int16x4_t words[4];
    for (int i = 0; i < 4; i++) words[i] = vqmovn_s32(vcvtnq_s32_f32(x.v[i]));
    vst1_s8(p, vqmovn_s16(vcombine_s16(words[0], words[1])));
    vst1_s8(p + 8, vqmovn_s16(vcombine_s16(words[2], words[3])));
}

inline I16 iset1(int32_t x) {
    const int32x4_t four = vdupq_n_s32(x);
    return {{four, four, four, four}};
}
inline I16 iadd(I16 a, I16 b) {
    for (int i = 0; i < 4; i++) a.v[i] = vaddq_s32(a.v[i], b.v[i]);
    return a;
}
template <int BITS>
inline I16 shift_left(I16 a) {
    for (int i = 0; i < 4; i++) a.v[i] = vshlq_n_s32(a.v[i], BITS);
    return a;
}
inline F16 to_float(I16 a) {
    return each([&](int i) { return vcvtq_f32_s32(a.v[i]); });
}
inline Bytes load_bytes(const uint8_t* p) {
    Bytes out;
    for (int i = 0; i < 4; i++) out.v[i] = vreinterpretq_s8_u8(vld1q_u8(p + 16 * i));
    return out;
}
inline Bytes load_codes(const uint8_t* p) { return load_bytes(p); }
inline Bytes load_pairs(const uint16_t* p) {
    Bytes out;
    for (int i = 0; i < 4; i++) out.v[i] = vreinterpretq_s8_u16(vld1q_u16(p + 8 * i));
    return out;
}
inline Bytes low_nibbles(Bytes x) {
    for (int8x16_t& part : x.v) part = vandq_s8(part, vdupq_n_s8(15));
    return x;
}
inline Bytes high_nibbles(Bytes x) {
    for (int8x16_t& part : x.v) part = vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(part), 4));
    return x;
}
inline int32x4_t dot4(int32x4_t acc, int8x16_t w, int8x16_t a) {
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_s32(acc, w, a);
#else
    // Codes are at most 127 in size: two products add up to less than 2^15.
    const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(a)), high = vmull_high_s8(w, a);
    return vpadalq_s16(acc, vpaddq_s16(low, high));
#endif
}
inline uint32x4_t four(const void* a) {
    uint32_t bits;
    std::memcpy(&bits, a, 4);
    return vdupq_n_u32(bits);
}
inline const void* held(const void* a) { return a; }
inline I16 dot4(I16 acc, Bytes w, const void* a) {
    const int8x16_t quad = vreinterpretq_s8_u32(four(a));
    for (int i = 0; i < 4; i++) acc.v[i] = dot4(acc.v[i], w.v[i], quad);
    return acc;
}

#ifdef __ARM_FEATURE_MATMUL_INT8
// Eight columns of sixteen rows of weights, two rows to a register.
struct Eights {
    int8x16_t v[8];
};
inline Eights in_eights(Bytes first, Bytes second) {
    Eights out;
    for (int i = 0; i < 4; i++) {
        const int32x4_t left = vreinterpretq_s32_s8(first.v[i]), right = vreinterpretq_s32_s8(second.v[i]);
        out.v[2 * i] = vreinterpretq_s8_s32(vzip1q_s32(left, right));
        out.v[2 * i + 1] = vreinterpretq_s8_s32(vzip2q_s32(left, right));
    }
    return out;
}
// Dots of sixteen rows of weights with two of activations: in each register those of two by two.
struct PairDots {
    int32x4_t v[8];
};
inline void add_eights(PairDots& dots, const Eights& w, const int8_t* a, const int8_t* b) {
    const int8x16_t both = vcombine_s8(vld1_s8(a), vld1_s8(b));
    for (int i = 0; i < 8; i++) dots.v[i] = vmmlaq_s32(dots.v[i], w.v[i], both);
}
inline I16 dots_of(const PairDots& dots, bool second) {
    I16 out;
    for (int i = 0; i < 4; i++) {
        const int32x4_t left = dots.v[2 * i], right = dots.v[2 * i + 1];
        out.v[i] = second ? vuzp2q_s32(left, right) : vuzp1q_s32(left, right);
    }
    return out;
}
#endif

inline float32x4_t first_halves(uint32x4_t x) { return vreinterpretq_f32_u32(vshlq_n_u32(x, 16)); }
inline float32x4_t second_halves(uint32x4_t x) { return vreinterpretq_f32_u32(vandq_u32(x, vdupq_n_u32(0xffff0000))); }
inline F16 dot2(F16 acc, Bytes w, const uint16_t* a) {
    const float32x4_t first = first_halves(four(a)), second = second_halves(four(a));
    return each([&](int i) {
        const uint32x4_t pairs = vreinterpretq_u32_s8(w.v[i]);
        return vfmaq_f32(vfmaq_f32(acc.v[i], first_halves(pairs), first), second_halves(pairs), second);
    });
}

constexpr bool SHIFTED = false;
constexpr int64_t ROWS = 2;  // activations that share one pass over a panel
#ifdef __ARM_FEATURE_MATMUL_INT8
constexpr int64_t ROWS_IN_8_BITS = 4;
#else
constexpr int64_t ROWS_IN_8_BITS = ROWS;
#endif
constexpr int AT_ONCE = 1;  // fours of registers of keys or values that attention works on at a time

}  // namespace

#include "simd_parts.h"
