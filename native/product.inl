// Weights and activations in few bits, and their products; a part of kernels.inl.

namespace {

constexpr int64_t TILE = Activations::TILE;

constexpr float TINY = 1e-36f;  // numbers that share a scale and are all smaller count as zeros

// Sixteen whole numbers as high * 2^LOW_BITS + low, low from -2^(LOW_BITS - 1) to 2^(LOW_BITS - 1) - 1.
inline void store_parts(F16 code, int8_t* high_at, int8_t* low_at) {
    constexpr float UNIT = 1 << Activations::LOW_BITS;
    // A quarter more, so that what lies halfway goes up.
    const F16 high = round(fma(code, set1(1.0f / UNIT), set1(0.25f / UNIT)));
    store_int8(high_at, high);
    store_int8(low_at, fma(high, set1(-UNIT), code));
}

// The largest of n numbers' sizes, of sixteen at a time; `none`: 0, or NaN where one of them is not finite.
struct Peak {
    F16 size = set1(0.0f), zeros = set1(0.0f);  // a number times 0 is 0, infinity and NaN times 0 are NaN
    inline void add(F16 v) {
        size = max(size, abs(v));
        zeros = fma(v, set1(0.0f), zeros);
    }
    inline float none() const { return sum(zeros); }
};

// A row's codes of 8 bits, its spans' scales, and 128 times its spans' codes.
void quantize_eights(const float* x, int64_t n, const Activations& to, int64_t row) {
    int8_t* codes = to.eights(row);
    float* scales = to.spans(row);
    int32_t* surplus = to.surplus(row);
    for (int64_t begin = 0; begin < to.n_blocks * BLOCK; begin += SPAN, scales += TILE, surplus += TILE) {
        F16 v[SPAN / LANES];
        const int64_t n_parts = least(SPAN, to.n_blocks * BLOCK - begin) / LANES;
        for (int64_t i = 0; i < n_parts; i++) {
            const int64_t left = n - begin - i * LANES;
            v[i] = left > 0 ? load_part(x + begin + i * LANES, left, 0.0f) : set1(0.0f);
        }
        hadamard(v, n_parts, ROW_FACTOR);
        Peak peak;
        for (int64_t i = 0; i < n_parts; i++) peak.add(v[i]);
        const float largest = largest_of(peak.size), none = peak.none();
        const bool any = none == 0.0f && largest > TINY;
        const F16 inverse = set1(any ? 127.0f / largest : 0.0f);
        *scales = any ? largest / 127.0f : none;
        F16 total = set1(0.0f);
        for (int64_t i = 0; i < n_parts; i++) {
            const F16 code = any ? round(mul(v[i], inverse)) : set1(0.0f);
            store_int8(codes + i * LANES / BLOCK * TILE * BLOCK + i * LANES % BLOCK, code);
            total = add(total, code);
        }
        if (SHIFTED) *surplus = 128 * static_cast<int32_t>(sum(total));
        codes += SPAN / BLOCK * TILE * BLOCK;
    }
}

// A row's codes of 12 bits, its scale, and the codes' sums.
void quantize_fours(const float* x, int64_t n, const Activations& to, int64_t row) {
    constexpr float TOP = 127 << Activations::LOW_BITS;
    Peak peak;
    for (int64_t i = 0; i < n; i += LANES) peak.add(load_part(x + i, n - i, 0.0f));
    const float largest = largest_of(peak.size), none = peak.none();
    const bool any = none == 0.0f && largest > TINY;
    const F16 inverse = set1(any ? TOP / largest : 0.0f);
    auto codes_of = [&](int64_t i) __attribute__((always_inline)) {
        return any && i < n ? round(mul(load_part(x + i, n - i, 0.0f), inverse)) : set1(0.0f);
    };
    int8_t* codes = to.fours(row);
    float* sums = to.sums(row);
    for (int64_t half = 0; half < to.n_blocks * (BLOCK / HALF); half++, codes += TILE * BLOCK, sums += TILE) {
        const F16 left = codes_of(half * HALF), right = codes_of(half * HALF + LANES);
        store_parts(left, codes, codes + HALF);
        store_parts(right, codes + LANES, codes + HALF + LANES);
        *sums = sum(add(left, right));
    }
    to.four_scales[row] = any ? largest / TOP : none;
}

void quantize(const float* x, int64_t n, const Activations& to, int64_t row) {
    if (to.meets.eight_bits) quantize_eights(x, n, to, row);
    if (to.meets.four_bits) quantize_fours(x, n, to, row);
}

void narrow(const float* x, int64_t n, const Activations& to, int64_t row) {
    uint16_t* out = to.narrow(row);
    for (int64_t begin = 0; begin < n; begin += BLOCK, out += BLOCK * TILE)
        for (int64_t i = 0; i < BLOCK; i += LANES) {
            const int64_t left = n - begin - i;
            store_bf16(out + i, left > 0 ? load_part(x + begin + i, left, 0.0f) : set1(0.0f));
        }
}

// A number as fp16, and what that is again.
inline uint16_t halved(float& x) {
    alignas(64) uint16_t halves[LANES] = {to_half(x)};
    float back[LANES];
    store(back, load_half(halves));
    x = back[0];
    return halves[0];
}

// Codes of n columns of a row, in [lowest, highest]: (value - minimum) / scale.
inline void encode(const float* values, int64_t n, float scale, float minimum, float lowest, float highest,
                   int8_t* to) {
    const F16 inverse = set1(scale > 0.0f ? 1.0f / scale : 0.0f);
    for (int64_t i = 0; i < n; i += LANES) {
        const F16 code = round(mul(sub(load(values + i), set1(minimum)), inverse));
        // The scale may have been rounded down; and NaN becomes a number.
        store_int8(to + i, min(max(code, set1(lowest)), set1(highest)));
    }
}

// n columns of a span. The scale: infinite where fp16 does not hold it.
inline float pack_row_q8(const float* values, int64_t n, const Panels& to, int64_t panel, int64_t span, int64_t row) {
    F16 peak = set1(0.0f), v[SPAN / LANES];
    float turned[SPAN];
    for (int64_t i = 0; i < n / LANES; i++) v[i] = load(values + i * LANES);
    hadamard(v, n / LANES, weight_factor(n));
    for (int64_t i = 0; i < n / LANES; i++) {
        store(turned + i * LANES, v[i]);
        peak = max(peak, abs(v[i]));
    }
    float scale = largest_of(peak) / 127.0f;
    to.scales(panel)[span * PANEL + row] = halved(scale);
    int8_t codes[SPAN];
    encode(turned, n, scale, 0.0f, -127.0f, 127.0f, codes);
    uint8_t* out = to.codes(panel) + span * PANEL * SPAN + row * QUAD;
    for (int64_t k = 0; k < n; k += QUAD) std::memcpy(out + k * PANEL, codes + k, QUAD);
    return scale;
}

// The sum of its scales' and minima's sizes: infinite where fp16 does not hold one of them.
inline float pack_row_q4(const float* values, int64_t n, const Panels& to, int64_t panel, int64_t half, int64_t row) {
    float sizes = 0.0f;
    for (const float* end = values + n; values < end; half++, values += HALF) {
        const F16 left = load(values), right = load(values + LANES), none = set1(0.0f);
        float minimum = -largest_of(max(sub(none, left), sub(none, right)));
        float scale = (largest_of(max(left, right)) - minimum) / 15.0f;
        to.minima(panel)[half * PANEL + row] = halved(minimum);
        to.scales(panel)[half * PANEL + row] = halved(scale);
        int8_t codes[HALF];
        encode(values, HALF, scale, minimum, 0.0f, 15.0f, codes);
        uint8_t* out = to.codes(panel) + half * PANEL * HALF / 2 + row * QUAD;
        uint8_t both[HALF / 2];
        for (int64_t k = 0; k < HALF / 2; k++) both[k] = static_cast<uint8_t>(codes[k] | codes[k + HALF / 2] << 4);
        for (int64_t k = 0; k < HALF / 2; k += QUAD) std::memcpy(out + k * PANEL, both + k, QUAD);
        sizes += scale + std::fabs(minimum);
    }
    return sizes;
}

inline void pack_row_bf16(const float* values, int64_t n, const Panels& to, int64_t panel, int64_t begin, int64_t row) {
    uint16_t numbers[SPAN];
    for (int64_t i = 0; i < n; i += LANES) store_bf16(numbers + i, load(values + i));
    uint8_t* out = to.codes(panel) + begin * PANEL * 2 + row * 4;
    for (int64_t k = 0; k < n; k += 2) std::memcpy(out + k / 2 * LINE, numbers + k, 4);
}

bool pack(const float* weight, int64_t n_rows, const Panels& to, int64_t panel) {
    F16 zeros = set1(0.0f);
    float more_zeros = 0.0f;
    for (int64_t row = 0; row < n_rows; row++) {
        for (int64_t begin = 0; begin < to.K; begin += SPAN) {
            const int64_t n = least(SPAN, to.n_blocks * BLOCK - begin);
            float values[SPAN] = {};
            std::memcpy(values, weight + row * to.K + begin, least(n, to.K - begin) * sizeof(float));
            for (int64_t i = 0; i < n; i += LANES) zeros = fma(load(values + i), set1(0.0f), zeros);
            if (to.coding == Coding::BF16)
                pack_row_bf16(values, n, to, panel, begin, row);
            else if (to.four_bits())
                more_zeros += 0.0f * pack_row_q4(values, n, to, panel, begin / HALF, row);
            else
                more_zeros += 0.0f * pack_row_q8(values, n, to, panel, begin / SPAN, row);
        }
    }
    return sum(zeros) + more_zeros == 0.0f;
}

inline void fetch(const void* p) { __builtin_prefetch(static_cast<const char*>(p) + AHEAD); }

// S panels of a weight, from the first on and so many bytes apart. All S are taken a line at a time: so many sums can
// be under way at once.
struct Streams {
    const uint8_t* first;
    int64_t apart;
    SMALLPRESS_INLINE const uint8_t* at(int s, int64_t byte) const { return first + s * apart + byte; }
    SMALLPRESS_INLINE const uint16_t* halves(int s, const uint16_t* of_first) const {
        return of_first + s * apart / static_cast<int64_t>(sizeof(uint16_t));
    }
};

#ifdef __ARM_FEATURE_MATMUL_INT8
// As span_q8, for one panel and an even number of rows.
template <int R>
inline void span_q8_in_eights(const uint8_t* codes, int64_t n, const uint16_t* halves, const int8_t* a,
                              const float* scales, bool fresh, F16* total) {
    PairDots dots[R / 2] = {};
    for (; n > 0; n -= BLOCK, a += TILE * BLOCK)
        for (int64_t j = 0; j < BLOCK; j += 2 * QUAD, codes += 2 * LINE) {
            if (fresh) fetch(codes), fetch(codes + LINE);
            const Eights w = in_eights(load_codes(codes), load_codes(codes + LINE));
            for (int r = 0; r < R; r += 2) add_eights(dots[r / 2], w, a + r * BLOCK + j, a + (r + 1) * BLOCK + j);
        }
    const F16 scale = load_half(halves);
    for (int r = 0; r < R; r++)
        total[r] = fma(to_float(dots_of(dots[r / 2], r % 2)), mul(scale, set1(scales[r])), total[r]);
}
#endif

// `n` columns of a span from the line at `byte` on, times R rows of a tile, added to their totals, [S, R]; `fresh`: the
// weights come from memory.
static_assert(HALF == 32 && Activations::LOW_BITS == 4, "as simd_*.h have it");
template <int S, int R>
inline void span_q8(const Streams& w, int64_t byte, int64_t n, const uint16_t* halves, const int8_t* a,
                    const float* scales, const int32_t* surplus, bool fresh, F16* total) {
#ifdef __ARM_FEATURE_MATMUL_INT8
    if constexpr (S == 1 && R % 2 == 0) return span_q8_in_eights<R>(w.at(0, byte), n, halves, a, scales, fresh, total);
#endif
    I16 dots[S][R];
    for (int s = 0; s < S; s++)
        for (int r = 0; r < R; r++) dots[s][r] = iset1(SHIFTED ? -surplus[r] : 0);
    for (; n > 0; n -= BLOCK, a += TILE * BLOCK)
        for (int64_t j = 0; j < BLOCK; j += QUAD, byte += PANEL * QUAD)
            for (int s = 0; s < S; s++) {
                if (fresh) fetch(w.at(s, byte));
                if (R == TILE) __builtin_prefetch(a + TILE * BLOCK + j / QUAD * BLOCK);  // a row of the next block
                const Bytes quad = load_codes(w.at(s, byte));
                for (int r = 0; r < R; r++) dots[s][r] = dot4(dots[s][r], quad, a + r * BLOCK + j);
            }
    for (int s = 0; s < S; s++) {
        const F16 scale = load_half(w.halves(s, halves));
        for (int r = 0; r < R; r++)
            total[s * R + r] = fma(to_float(dots[s][r]), mul(scale, set1(scales[r])), total[s * R + r]);
    }
}

// Half a block in 4 bits; `minima` null: 8 is taken from the codes.
template <int S, int R>
inline void half_q4(const Streams& w, int64_t byte, const uint16_t* halves, const uint16_t* minima, const int8_t* a,
                    const float* sums, bool fresh, F16* total) {
    FourDots dots[S][R];
    for (int64_t j = 0; j < HALF / 2; j += QUAD, byte += PANEL * QUAD)
        for (int s = 0; s < S; s++) {
            if (fresh) fetch(w.at(s, byte));
            const Bytes both = load_bytes(w.at(s, byte));
            const Bytes left = low_nibbles(both), right = high_nibbles(both);
            for (int r = 0; r < R; r++) add_quads(dots[s][r], left, right, a + r * BLOCK + j);
        }
    for (int s = 0; s < S; s++) {
        const F16 scale = load_half(w.halves(s, halves));
        for (int r = 0; r < R; r++) {
            const F16 dot = to_float(total_of_fours(dots[s][r]));
            F16& here = total[s * R + r];
            if (minima)
                here = fma(load_half(w.halves(s, minima)), set1(sums[r]), fma(dot, scale, here));
            else
                here = fma(sub(dot, set1(8.0f * sums[r])), scale, here);
        }
    }
}

template <int S, int R>
inline void block_bf16(const Streams& w, int64_t byte, const uint16_t* a, bool fresh, F16* total) {
    for (int64_t j = 0; j < BLOCK; j += 2, byte += LINE)
        for (int s = 0; s < S; s++) {
            if (fresh) fetch(w.at(s, byte));
            const Bytes pair = load_bytes(w.at(s, byte));
            for (int r = 0; r < R; r++) total[s * R + r] = dot2(total[s * R + r], pair, a + r * BLOCK + j);
        }
}

// S panels, `apart` from one another, times R rows of one tile, but for the rows' scales; out is [S, R].
template <int S, int R>
inline void panels_times_rows(const Activations& x, int64_t row, const Panels& w, int64_t first, int64_t apart,
                              F16* out) {
    const bool fresh = row == 0;
    const Streams streams{w.codes(first), apart * w.panel_bytes};
    for (int i = 0; i < S * R; i++) out[i] = set1(0.0f);
    if (w.coding == Coding::BF16) {
        const uint16_t* a = x.narrow(row);
        for (int64_t b = 0; b < w.n_blocks; b++)
            block_bf16<S, R>(streams, b * PANEL * BLOCK * 2, a + b * BLOCK * TILE, fresh, out);
        return;
    }
    if (w.coding == Coding::Q8) {
        const int8_t* a = x.eights(row);
        const float* scales = x.spans(row);
        const int32_t* surplus = x.surplus(row);
        const int64_t n_columns = w.n_blocks * BLOCK;
        for (int64_t begin = 0; begin < n_columns; begin += SPAN)
            span_q8<S, R>(streams, begin * PANEL, least(SPAN, n_columns - begin),
                          w.scales(first) + begin / SPAN * PANEL, a + begin * TILE, scales + begin / SPAN * TILE,
                          surplus + begin / SPAN * TILE, fresh, out);
        return;
    }
    const bool has_minima = w.coding == Coding::Q4_1;
    const int8_t* a = x.fours(row);
    const float* sums = x.sums(row);
    for (int64_t half = 0; half < w.n_blocks * (BLOCK / HALF); half++)
        half_q4<S, R>(streams, half * PANEL * HALF / 2, w.scales(first) + half * PANEL,
                      has_minima ? w.minima(first) + half * PANEL : nullptr, a + half * BLOCK * TILE,
                      sums + half * TILE, fresh, out);
}

// What a row's results are multiplied by in the end.
inline float row_scale(const Activations& x, const Panels& w, int64_t row) {
    return w.four_bits() ? x.four_scales[row] : 1.0f;
}

inline void put(float* out, int64_t n, Store store_, F16 x, float scale) {
    x = mul(x, set1(scale));
    store_part(out, n, store_ == Store::ADD ? add(load_part(out, n, 0.0f), x) : x);
}

// `n` <= R rows of one tile.
template <int R>
void rows_times_panel(const Activations& x, int64_t row, int64_t n, const Panels& w, int64_t panel, float* out,
                      int64_t stride, Store store_) {
    if constexpr (R > 1) {
        if (n < R) return rows_times_panel<R - 1>(x, row, n, w, panel, out, stride, store_);
    }
    F16 result[R];
    panels_times_rows<1, R>(x, row, w, panel, 0, result);
    for (int r = 0; r < R; r++)
        put(out + (row + r) * stride + panel * PANEL, w.N - panel * PANEL, store_, result[r], row_scale(x, w, row + r));
}

void product(const Activations& x, int64_t M, const Panels& w, int64_t first, int64_t last, float* out, int64_t stride,
             Store store_) {
    if (M == 1) {
        // Panels far apart: streams.
        const int64_t apart = (last - first) / STREAMS;
        for (int64_t i = 0; i < apart; i++) {
            F16 result[STREAMS];
            panels_times_rows<STREAMS, 1>(x, 0, w, first + i, apart, result);
            for (int s = 0; s < STREAMS; s++) {
                const int64_t begin = (first + i + s * apart) * PANEL;
                put(out + begin, w.N - begin, store_, result[s], row_scale(x, w, 0));
            }
        }
        first += apart * STREAMS;
    }
    // Panels outside, rows inside: a panel comes from memory once and stays in the first cache for all rows.
    static_assert(TILE % ROWS == 0 && TILE % ROWS_IN_8_BITS == 0, "rows multiplied together are of one tile");
    const bool eight_bits = w.coding == Coding::Q8;
    const int64_t together = eight_bits ? ROWS_IN_8_BITS : ROWS;
    const auto times = eight_bits ? rows_times_panel<ROWS_IN_8_BITS> : rows_times_panel<ROWS>;
    for (int64_t panel = first; panel < last; panel++)
        for (int64_t row = 0; row < M; row += together)
            times(x, row, least(together, M - row), w, panel, out, stride, store_);
}

}  // namespace
