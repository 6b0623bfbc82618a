// Sixteen lanes in two registers: AVX2, FMA and F16C.

#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace {

struct F16 {
    __m256 a, b;
};
struct I16 {
    __m256i a, b;
};
using Bytes = I16;

inline F16 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, F16 x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
inline F16 add(F16 x, F16 y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline F16 sub(F16 x, F16 y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline F16 mul(F16 x, F16 y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline F16 div(F16 x, F16 y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline F16 fma(F16 x, F16 y, F16 z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
inline F16 max(F16 x, F16 y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline F16 min(F16 x, F16 y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline F16 where_above(F16 x, F16 limit, F16 y) {
    return {_mm256_and_ps(_mm256_cmp_ps(x.a, limit.a, _CMP_GT_OQ), y.a),
            _mm256_and_ps(_mm256_cmp_ps(x.b, limit.b, _CMP_GT_OQ), y.b)};
}
inline F16 abs(F16 x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
template <int S>
inline F16 swapped(F16 x) {
    constexpr int NEIGHBOURS = 0xb1, PAIRS = 0x4e;
    if constexpr (S == 8) return {x.b, x.a};
    if constexpr (S == 4) return {_mm256_permute2f128_ps(x.a, x.a, 1), _mm256_permute2f128_ps(x.b, x.b, 1)};
    constexpr int ORDER = S == 1 ? NEIGHBOURS : PAIRS;
    return {_mm256_permute_ps(x.a, ORDER), _mm256_permute_ps(x.b, ORDER)};
}
inline F16 round(F16 x) {
    constexpr int NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.a, NEAREST), _mm256_round_ps(x.b, NEAREST)};
}
inline __m256 pow2(__m256 n) {
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
inline F16 pow2(F16 n) { return {pow2(n.a), pow2(n.b)}; }
inline float sum(F16 x) {
    const __m256 eight = _mm256_add_ps(x.a, x.b);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float largest_of(F16 x) {
    const __m256 eight = _mm256_max_ps(x.a, x.b);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

inline __m128i load_eight(const uint16_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
inline F16 load_half(const uint16_t* p) { return {_mm256_cvtph_ps(load_eight(p)), _mm256_cvtph_ps(load_eight(p + 8))}; }
inline __m256 widen_bf16(__m128i x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16)); }
inline F16 load_bf16(const uint16_t* p) { return {widen_bf16(load_eight(p)), widen_bf16(load_eight(p + 8))}; }
inline __m256i bf16_bits(__m256 x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
}
// Packing works on halves of a register; this puts their quarters in order again.
inline __m256i in_order(__m256i x) { return _mm256_permute4x64_epi64(x, _MM_SHUFFLE(3, 1, 2, 0)); }
inline void store_bf16(uint16_t* p, F16 x) {
    const __m256i packed = _mm256_packus_epi32(bf16_bits(x.a), bf16_bits(x.b));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), in_order(packed));
}
inline void store_int8(int8_t* p, F16 x) {
    const __m256i words = in_order(_mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)));
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}

inline I16 iset1(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline F16 to_float(I16 x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline Bytes load_bytes(const uint8_t* p) {
    const __m256i* at = reinterpret_cast<const __m256i*>(p);
    return {_mm256_load_si256(at), _mm256_load_si256(at + 1)};
}
inline Bytes load_codes(const uint8_t* p) { return load_bytes(p); }
inline Bytes load_pairs(const uint16_t* p) {
    const __m256i* at = reinterpret_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
}
inline __m256i low_nibbles(__m256i x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
inline Bytes low_nibbles(Bytes x) { return {low_nibbles(x.a), low_nibbles(x.b)}; }
inline Bytes high_nibbles(Bytes x) {
    return {low_nibbles(_mm256_srli_epi16(x.a, 4)), low_nibbles(_mm256_srli_epi16(x.b, 4))};
}
// Sizes of a, which the instruction wants without a sign, by w with a's signs: two products of codes of at most 127 add
// up to less than 2^15.
inline __m256i quads(__m256i w, __m256i a) {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(w, a));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
inline const void* held(const void* a) { return a; }
inline I16 dot4(I16 acc, Bytes w, const void* a) {
    int32_t quad;
    std::memcpy(&quad, a, 4);
    const __m256i all = _mm256_set1_epi32(quad);
    return {_mm256_add_epi32(acc.a, quads(w.a, all)), _mm256_add_epi32(acc.b, quads(w.b, all))};
}

// Dots with 12-bit codes in two parts, in 16 bits: a half block's 16 products of codes of at most 15 by 127 at most,
// added up for each pair of columns, stay below 2^15.
struct FourDots {
    Bytes high = iset1(0), low = iset1(0);
};
inline __m256i add_bytes(__m256i acc, __m256i w, int32_t a) {
    return _mm256_add_epi16(acc, _mm256_maddubs_epi16(w, _mm256_set1_epi32(a)));
}
inline void add_quads(FourDots& dots, Bytes first, Bytes second, const int8_t* a) {
    int32_t quads[4];
    for (int i = 0; i < 4; i++) std::memcpy(quads + i, a + 16 * i, 4);
    dots.high.a = add_bytes(add_bytes(dots.high.a, first.a, quads[0]), second.a, quads[1]);
    dots.high.b = add_bytes(add_bytes(dots.high.b, first.b, quads[0]), second.b, quads[1]);
    dots.low.a = add_bytes(add_bytes(dots.low.a, first.a, quads[2]), second.a, quads[3]);
    dots.low.b = add_bytes(add_bytes(dots.low.b, first.b, quads[2]), second.b, quads[3]);
}
inline __m256i sum_pairs(__m256i high, __m256i low) {
    const __m256i one = _mm256_set1_epi16(1);
    return _mm256_add_epi32(_mm256_slli_epi32(_mm256_madd_epi16(high, one), 4), _mm256_madd_epi16(low, one));
}
inline I16 total_of_fours(const FourDots& dots) {
    return {sum_pairs(dots.high.a, dots.low.a), sum_pairs(dots.high.b, dots.low.b)};
}

inline __m256 first_halves(__m256i x) { return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)); }
inline __m256 second_halves(__m256i x) {
    return _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(static_cast<int32_t>(0xffff0000))));
}
inline F16 dot2(F16 acc, Bytes w, const uint16_t* a) {
    int32_t pair;
    std::memcpy(&pair, a, 4);
    const __m256i both = _mm256_set1_epi32(pair);
    const __m256 first = first_halves(both), second = second_halves(both);
    const F16 half = {_mm256_fmadd_ps(first_halves(w.a), first, acc.a),
                      _mm256_fmadd_ps(first_halves(w.b), first, acc.b)};
    return {_mm256_fmadd_ps(second_halves(w.a), second, half.a), _mm256_fmadd_ps(second_halves(w.b), second, half.b)};
}

constexpr bool SHIFTED = false;
constexpr int64_t ROWS = 2, ROWS_IN_8_BITS = ROWS;  // activations that share one pass over a panel
constexpr int AT_ONCE = 1;  // pairs of registers of keys or values that attention works on at a time

}  // namespace
