// What training wants of sixteen lanes beyond simd_*.h. Where an instruction set has no better way, lane by lane.

namespace {

// table[codes[i]] of 256 floats.
inline F16 lookup(const float* table, const uint8_t* codes);
// table[place] of 16 floats; what a place has beyond a whole number is cut off.
inline F16 choose(const float* table, F16 places);
// The bits of x, not negative, as a whole number: about 2^23 * (log2(x) + 127).
inline F16 bits_as_number(F16 x);
// A size, not negative, with the sign of another number.
inline F16 with_sign(F16 size, F16 x);
inline F16 root(F16 x);
// Each lane's four bytes are the whole numbers of a, b, c and d there, -127 to 127.
inline void store_quads(int8_t* p, F16 a, F16 b, F16 c, F16 d);
// Numbers from 0 to below 256, cut to whole ones.
inline void store_codes(uint8_t* p, F16 x);

#if defined(__AVX512F__)

inline F16 lookup(const float* table, const uint8_t* codes) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
    return _mm512_i32gather_ps(_mm512_cvtepu8_epi32(bytes), table, 4);
}
inline F16 choose(const float* table, F16 places) {
    return _mm512_permutexvar_ps(_mm512_cvttps_epi32(places), load(table));
}
inline F16 bits_as_number(F16 x) { return _mm512_cvtepi32_ps(_mm512_castps_si512(x)); }
inline F16 with_sign(F16 size, F16 x) { return _mm512_or_ps(size, _mm512_and_ps(x, set1(-0.0f))); }
inline F16 root(F16 x) { return _mm512_sqrt_ps(x); }
inline void store_codes(uint8_t* p, F16 x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(x)));
}
inline void store_quads(int8_t* p, F16 a, F16 b, F16 c, F16 d) {
    const __m512i low = _mm512_set1_epi32(255);
    const __m512i ab = _mm512_or_si512(_mm512_and_si512(_mm512_cvtps_epi32(a), low),
                                       _mm512_slli_epi32(_mm512_and_si512(_mm512_cvtps_epi32(b), low), 8));
    const __m512i cd =
        _mm512_or_si512(_mm512_and_si512(_mm512_cvtps_epi32(c), low), _mm512_slli_epi32(_mm512_cvtps_epi32(d), 8));
    _mm512_storeu_si512(p, _mm512_or_si512(ab, _mm512_slli_epi32(cd, 16)));
}

#elif defined(__AVX2__)

inline F16 lookup(const float* table, const uint8_t* codes) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
    return {_mm256_i32gather_ps(table, _mm256_cvtepu8_epi32(bytes), 4),
            _mm256_i32gather_ps(table, _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)), 4)};
}
inline F16 choose(const float* table, F16 places) {
    return {_mm256_i32gather_ps(table, _mm256_cvttps_epi32(places.a), 4),
            _mm256_i32gather_ps(table, _mm256_cvttps_epi32(places.b), 4)};
}
inline F16 bits_as_number(F16 x) {
    return {_mm256_cvtepi32_ps(_mm256_castps_si256(x.a)), _mm256_cvtepi32_ps(_mm256_castps_si256(x.b))};
}
inline F16 with_sign(F16 size, F16 x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_or_ps(size.a, _mm256_and_ps(x.a, sign)), _mm256_or_ps(size.b, _mm256_and_ps(x.b, sign))};
}
inline F16 root(F16 x) { return {_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)}; }
inline void store_codes(uint8_t* p, F16 x) {
    const __m256i words = in_order(_mm256_packus_epi32(_mm256_cvttps_epi32(x.a), _mm256_cvttps_epi32(x.b)));
    const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}

#else

template <typename Op>
inline F16 lane_by_lane(F16 x, Op op) {
    float lanes[16];
    store(lanes, x);
    for (float& lane : lanes) lane = op(lane);
    return load(lanes);
}
inline F16 lookup(const float* table, const uint8_t* codes) {
    float lanes[16];
    for (int i = 0; i < 16; i++) lanes[i] = table[codes[i]];
    return load(lanes);
}
inline F16 choose(const float* table, F16 places) {
    return lane_by_lane(places, [table](float place) { return table[static_cast<int>(place)]; });
}
inline F16 bits_as_number(F16 x) {
    return lane_by_lane(x, [](float lane) { return static_cast<float>(bits_of(lane)); });
}
inline F16 with_sign(F16 size, F16 x) {
    float sizes[16], lanes[16];
    store(sizes, size);
    store(lanes, x);
    for (int i = 0; i < 16; i++) sizes[i] = lanes[i] < 0.0f ? -sizes[i] : sizes[i];
    return load(sizes);
}
inline F16 root(F16 x) {
    return lane_by_lane(x, [](float lane) { return sqrtf(lane); });
}
inline void store_codes(uint8_t* p, F16 x) {
    float lanes[16];
    store(lanes, x);
    for (int i = 0; i < 16; i++) p[i] = static_cast<uint8_t>(lanes[i]);
}

#endif

#if !defined(__AVX512F__)

inline void store_quads(int8_t* p, F16 a, F16 b, F16 c, F16 d) {
    int8_t bytes[4][16];
    store_int8(bytes[0], a);
    store_int8(bytes[1], b);
    store_int8(bytes[2], c);
    store_int8(bytes[3], d);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 4; j++) p[4 * i + j] = bytes[j][i];
}

#endif

}  // namespace
