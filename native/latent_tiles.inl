// A query over latents in tile registers, 16 heads at a time; a part of kernels_amx.cpp.
//
// Scores take the latents' rows as they lie in a page. To be mixed, pairs of tokens are brought side by side.

namespace {

constexpr int64_t DEEP = 32;  // numbers of a row, or tokens, that are multiplied and added up in one instruction

inline bool in_tiles(const LatentSpan& s) {
    return s.page_size % LANES == 0 && s.first % LANES == 0 && s.width % DEEP == 0 && s.rank % (4 * LANES) == 0;
}

// [token, head] of T times sixteen tokens. Dots are in 0 to 3; latents in 4, queries in 5.
template <int T>
inline void score_latent_tiles(const LatentSpan& s, int64_t token, float* scores) {
    static_assert(T == 1 || T == 4);
    const uint16_t* rows[T];
    for (int t = 0; t < T; t++) {
        const int64_t here = token + t * LANES;
        rows[t] = s.pages[here / s.page_size] + here % s.page_size * s.width;
    }
    const int64_t apart = s.width * 2;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t d = 0; d < s.width; d += DEEP) {
        _tile_loadd(5, s.q + d * LANES, LINE);
        _tile_loadd(4, rows[0] + d, apart);
        _tile_dpbf16ps(0, 4, 5);
        if constexpr (T == 4) {
            _tile_loadd(4, rows[1] + d, apart);
            _tile_dpbf16ps(1, 4, 5);
            _tile_loadd(4, rows[2] + d, apart);
            _tile_dpbf16ps(2, 4, 5);
            _tile_loadd(4, rows[3] + d, apart);
            _tile_dpbf16ps(3, 4, 5);
        }
    }
    constexpr int64_t EACH = LANES * LANES;
    _tile_stored(0, scores, LINE);
    if constexpr (T == 4) {
        _tile_stored(1, scores + EACH, LINE);
        _tile_stored(2, scores + 2 * EACH, LINE);
        _tile_stored(3, scores + 3 * EACH, LINE);
    }
}

// Sixteen rows of sixteen 32-bit numbers, turned.
inline void turn(__m512i* r) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    // A quarter of r[4 i + j] now holds, of column j of its quarter, rows 4 i to 4 i + 3.
    for (int j = 0; j < 4; j++) {
        t[j] = _mm512_shuffle_i32x4(r[j], r[j + 4], 0x88);
        t[j + 4] = _mm512_shuffle_i32x4(r[j], r[j + 4], 0xdd);
        t[j + 8] = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0x88);
        t[j + 12] = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0xdd);
    }
    for (int j = 0; j < 4; j++) {
        r[j] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0x88);
        r[j + 8] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0xdd);
        r[j + 4] = _mm512_shuffle_i32x4(t[j + 4], t[j + 12], 0x88);
        r[j + 12] = _mm512_shuffle_i32x4(t[j + 4], t[j + 12], 0xdd);
    }
}

// Weights [token, head] of DEEP tokens in fp32 as [head, token] in bf16; those from the n-th token on are 0.
inline void turn_weights(const float* weights, int64_t n, uint16_t* to) {
    __m512i pairs[LANES];
    for (int64_t i = 0; i < LANES; i++) {
        alignas(64) uint16_t left[LANES], right[LANES];
        const F16 none = set1(0.0f);
        store_bf16(left, 2 * i < n ? load(weights + 2 * i * LANES) : none);
        store_bf16(right, 2 * i + 1 < n ? load(weights + (2 * i + 1) * LANES) : none);
        const __m512i low = _mm512_cvtepu16_epi32(_mm256_load_si256(reinterpret_cast<const __m256i*>(left)));
        const __m512i high = _mm512_cvtepu16_epi32(_mm256_load_si256(reinterpret_cast<const __m256i*>(right)));
        pairs[i] = _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
    }
    turn(pairs);
    for (int64_t h = 0; h < LANES; h++) _mm512_storeu_si512(to + h * DEEP, pairs[h]);
}

// Columns d to d + 64 of DEEP tokens, in four tiles [pair of tokens, column, 2]. What is no token's is 0: a weight of 0
// does not hide a NaN.
inline void pair_rows(const LatentSpan& s, int64_t token, int64_t d, uint16_t* tiles) {
    alignas(64) static constexpr uint16_t FIRST[DEEP] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                         8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
    const __m512i first = _mm512_load_si512(FIRST), second = _mm512_add_epi16(first, _mm512_set1_epi16(16));
    auto row = [&](int64_t t) { return s.pages[t / s.page_size] + t % s.page_size * s.width + d; };
    for (int64_t i = 0; i < LANES; i++) {
        const int64_t t = token + 2 * i;
        const uint16_t *left = t < s.last ? row(t) : nullptr, *right = t + 1 < s.last ? row(t + 1) : nullptr;
        for (int64_t half = 0; half < 2; half++) {
            const __m512i a = left ? _mm512_loadu_si512(left + half * DEEP) : _mm512_setzero_si512();
            const __m512i b = right ? _mm512_loadu_si512(right + half * DEEP) : _mm512_setzero_si512();
            uint16_t* to = tiles + 2 * half * LANES * DEEP + i * DEEP;
            _mm512_store_si512(to, _mm512_permutex2var_epi16(a, first, b));
            _mm512_store_si512(to + LANES * DEEP, _mm512_permutex2var_epi16(a, second, b));
        }
    }
}

void attend_latent_tiles(const LatentSpan& s) {
    if (!in_tiles(s)) return attend_latent(s);
    constexpr int64_t EACH = LANES * DEEP;  // numbers of a tile
    const int64_t n = s.last - s.first;
    int64_t t = 0;
    take_tiles();
    for (; t + 4 * LANES <= n; t += 4 * LANES) score_latent_tiles<4>(s, s.first + t, s.weights + t * LANES);
    for (; t < n; t += LANES) score_latent_tiles<1>(s, s.first + t, s.weights + t * LANES);
    soften_latents(s);
    alignas(64) uint16_t weights[LATENT_SPAN * LANES], tiles[4 * EACH];
    for (t = 0; t < n; t += DEEP) turn_weights(s.weights + t * LANES, n - t, weights + t * LANES);
    const int64_t apart = s.rank * 4;
    for (int64_t d = 0; d < s.rank; d += 4 * LANES) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (t = 0; t < n; t += DEEP) {
            pair_rows(s, s.first + t, d, tiles);
            _tile_loadd(4, weights + t * LANES, LINE);
            _tile_loadd(5, tiles, LINE);
            _tile_dpbf16ps(0, 4, 5);
            _tile_loadd(5, tiles + EACH, LINE);
            _tile_dpbf16ps(1, 4, 5);
            _tile_loadd(5, tiles + 2 * EACH, LINE);
            _tile_dpbf16ps(2, 4, 5);
            _tile_loadd(5, tiles + 3 * EACH, LINE);
            _tile_dpbf16ps(3, 4, 5);
        }
        _tile_stored(0, s.mix + d, apart);
        _tile_stored(1, s.mix + d + LANES, apart);
        _tile_stored(2, s.mix + d + 2 * LANES, apart);
        _tile_stored(3, s.mix + d + 3 * LANES, apart);
    }
    _tile_release();
}

}  // namespace
