// Sixteen lanes in one register: AVX-512 F, BW, DQ, VL and VNNI.

#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace {

using F16 = __m512;
using I16 = __m512i;
using Bytes = __m512i;

inline F16 set1(float x) { return _mm512_set1_ps(x); }
inline F16 load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, F16 x) { _mm512_storeu_ps(p, x); }
inline F16 add(F16 a, F16 b) { return _mm512_add_ps(a, b); }
inline F16 sub(F16 a, F16 b) { return _mm512_sub_ps(a, b); }
inline F16 mul(F16 a, F16 b) { return _mm512_mul_ps(a, b); }
inline F16 div(F16 a, F16 b) { return _mm512_div_ps(a, b); }
inline F16 fma(F16 a, F16 b, F16 c) { return _mm512_fmadd_ps(a, b, c); }
inline F16 max(F16 a, F16 b) { return _mm512_max_ps(a, b); }
inline F16 min(F16 a, F16 b) { return _mm512_min_ps(a, b); }
inline F16 where_above(F16 x, F16 limit, F16 y) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_GT_OQ), y);
}
inline F16 abs(F16 a) { return _mm512_abs_ps(a); }
template <int S>
inline F16 swapped(F16 a) {
    constexpr int NEIGHBOURS = 0xb1, PAIRS = 0x4e;  // of four numbers, or of four quarters
    if constexpr (S < 4) return _mm512_permute_ps(a, S == 1 ? NEIGHBOURS : PAIRS);
    return _mm512_shuffle_f32x4(a, a, S == 4 ? NEIGHBOURS : PAIRS);
}
inline F16 round(F16 a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline F16 pow2(F16 n) { return _mm512_scalef_ps(_mm512_set1_ps(1.0f), n); }
inline float sum(F16 a) { return _mm512_reduce_add_ps(a); }
inline float largest_of(F16 a) { return _mm512_reduce_max_ps(a); }

inline F16 load_half(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline F16 load_bf16(const uint16_t* p) {
    const __m256i narrow = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
}
inline void store_bf16(uint16_t* p, F16 x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
}
// Their lowest bytes, so that it stores [0, 255] as well.
inline void store_int8(int8_t* p, F16 x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
}

inline I16 iset1(int32_t x) { return _mm512_set1_epi32(x); }
inline I16 iadd(I16 a, I16 b) { return _mm512_add_epi32(a, b); }
template <int BITS>
inline I16 shift_left(I16 a) {
    return _mm512_slli_epi32(a, BITS);
}
inline F16 to_float(I16 a) { return _mm512_cvtepi32_ps(a); }
inline Bytes load_bytes(const uint8_t* p) { return _mm512_load_si512(p); }
inline Bytes load_pairs(const uint16_t* p) { return _mm512_loadu_si512(p); }
alignas(64) constexpr uint16_t UPPER_HALVES[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                                   33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
// Of codes: the upper halves of them as floats.
inline Bytes load_pairs(const int8_t* p) {
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    const __m512 first = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_castsi256_si128(codes)));
    const __m512 second = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_extracti128_si256(codes, 1)));
    return _mm512_permutex2var_epi16(_mm512_castps_si512(first), _mm512_load_si512(UPPER_HALVES),
                                     _mm512_castps_si512(second));
}
inline Bytes low_nibbles(Bytes x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
inline Bytes high_nibbles(Bytes x) { return _mm512_and_si512(_mm512_srli_epi16(x, 4), _mm512_set1_epi8(15)); }
inline __m512i four(const void* a) {
    int32_t quad;
    std::memcpy(&quad, a, 4);
    return _mm512_set1_epi32(quad);
}
// VNNI multiplies unsigned bytes, here those of w, by signed ones, which it takes from memory and spreads by itself. In
// assembly, because compilers load them apart and copy every sum twice.
using Quad __attribute__((may_alias, aligned(1))) = const int32_t;
inline I16 dot4(I16 acc, Bytes w, const void* a) {
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*static_cast<Quad*>(a)));
    return acc;
}
inline __m512i held(const void* a) { return four(a); }
inline I16 dot4(I16 acc, Bytes w, __m512i a) { return _mm512_dpbusd_epi32(acc, w, a); }
inline Bytes load_codes(const uint8_t* p) {
    return _mm512_xor_si512(load_bytes(p), _mm512_set1_epi8(static_cast<char>(0x80)));
}

inline __m512 first_halves(__m512i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)); }
inline __m512 second_halves(__m512i x) {
    return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(static_cast<int32_t>(0xffff0000))));
}
inline F16 dot2(F16 acc, Bytes w, const uint16_t* a) {
    const __m512i pair = four(a);
#if defined(__AVX512BF16__)
    return _mm512_dpbf16_ps(acc, (__m512bh)w, (__m512bh)pair);
#else
    acc = _mm512_fmadd_ps(first_halves(w), first_halves(pair), acc);
    return _mm512_fmadd_ps(second_halves(w), second_halves(pair), acc);
#endif
}

constexpr bool SHIFTED = true;
constexpr int64_t ROWS = 8, ROWS_IN_8_BITS = 16;  // activations that share one pass over a panel
constexpr int AT_ONCE = 4;                        // registers of keys or values that attention works on at a time

}  // namespace

#include "simd_parts.h"
