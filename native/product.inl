// Weights and activations in few bits, and their products; a part of kernels.inl.

namespace {

constexpr int64_t TILE = Activations::TILE;

constexpr float TINY = 1e-36f;  // 127 / TINY is a number still; what is smaller counts as zero

void quantize(const float* x, int64_t n, const Activations& to, int64_t row) {
    constexpr int64_t PARTS = BLOCK / LANES;
    int8_t* codes = to.codes(row);
    int8_t* shifted = reinterpret_cast<int8_t*>(to.shifted(row));
    float *scales = to.scales(row), *sums = to.sums(row);
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        F16 parts[PARTS], peak = set1(0.0f);
        for (int64_t i = 0; i < PARTS; i++) {
            const int64_t left = n - begin - i * LANES;
            parts[i] = left > 0 ? load_part(x + begin + i * LANES, left, 0.0f) : set1(0.0f);
            peak = max(peak, abs(parts[i]));
        }
        const float largest = largest_of(peak);
        const F16 inverse = set1(largest > TINY ? 127.0f / largest : 0.0f);
        float scale = largest / 127.0f;
        F16 total = set1(0.0f);
        for (int64_t i = 0; i < PARTS; i++) {
            parts[i] = round(mul(parts[i], inverse));
            total = add(total, parts[i]);
        }
        if (const float all = sum(total); all != all) {  // NaN, or infinity times 0: no product with this is a number
            scale = all;
            for (int64_t i = 0; i < PARTS; i++) parts[i] = set1(0.0f);
        }
        for (int64_t i = 0; i < PARTS; i++) {
            store_int8(codes + i * LANES, parts[i]);
            // Not from the codes, which are still on their way to memory.
            if (SHIFTED) store_int8(shifted + i * LANES, add(parts[i], set1(128.0f)));
        }
        *scales = scale;
        for (int64_t half = 0; half < BLOCK / HALF; half++)
            sums[half * TILE] = scale * sum(add(parts[2 * half], parts[2 * half + 1]));
        codes += BLOCK * TILE;
        shifted += BLOCK * TILE;
        scales += TILE;
        sums += TILE * (BLOCK / HALF);
    }
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

// The scale: infinite where fp16 does not hold it.
inline float pack_row_q8(const float* values, const Panels& to, int64_t panel, int64_t b, int64_t row) {
    F16 peak = set1(0.0f);
    for (int64_t i = 0; i < BLOCK; i += LANES) peak = max(peak, abs(load(values + i)));
    float scale = largest_of(peak) / 127.0f;
    to.scales(panel)[b * PANEL + row] = halved(scale);
    int8_t codes[BLOCK];
    encode(values, BLOCK, scale, 0.0f, -127.0f, 127.0f, codes);
    uint8_t* out = to.codes(panel) + b * PANEL * BLOCK + row * QUAD;
    for (int64_t k = 0; k < BLOCK; k++) out[k / QUAD * PANEL * QUAD + k % QUAD] = static_cast<uint8_t>(codes[k]);
    return scale;
}

// The sum of its scales' and minima's sizes: infinite where fp16 does not hold one of them.
inline float pack_row_q4(const float* values, const Panels& to, int64_t panel, int64_t b, int64_t row) {
    float sizes = 0.0f;
    for (int64_t half = b * (BLOCK / HALF); half < (b + 1) * (BLOCK / HALF); half++, values += HALF) {
        const F16 left = load(values), right = load(values + LANES), none = set1(0.0f);
        float minimum = -largest_of(max(sub(none, left), sub(none, right)));
        float scale = (largest_of(max(left, right)) - minimum) / 15.0f;
        to.minima(panel)[half * PANEL + row] = halved(minimum);
        to.scales(panel)[half * PANEL + row] = halved(scale);
        int8_t codes[HALF];
        encode(values, HALF, scale, minimum, 0.0f, 15.0f, codes);
        uint8_t* out = to.codes(panel) + half * PANEL * HALF / 2 + row * QUAD;
        for (int64_t k = 0; k < HALF / 2; k++)
            out[k / QUAD * PANEL * QUAD + k % QUAD] = static_cast<uint8_t>(codes[k] | codes[k + HALF / 2] << 4);
        sizes += scale + std::fabs(minimum);
    }
    return sizes;
}

inline void pack_row_bf16(const float* values, const Panels& to, int64_t panel, int64_t b, int64_t row) {
    uint16_t numbers[BLOCK];
    for (int64_t i = 0; i < BLOCK; i += LANES) store_bf16(numbers + i, load(values + i));
    uint8_t* out = to.codes(panel) + b * PANEL * BLOCK * 2 + row * 4;
    for (int64_t k = 0; k < BLOCK; k += 2) std::memcpy(out + k / 2 * LINE, numbers + k, 4);
}

bool pack(const float* weight, int64_t n_rows, const Panels& to, int64_t panel) {
    F16 zeros = set1(0.0f);  // a number times 0 is 0, infinity and NaN times 0 are NaN
    float more_zeros = 0.0f;
    for (int64_t row = 0; row < n_rows; row++) {
        for (int64_t b = 0; b < to.n_blocks; b++) {
            float values[BLOCK] = {};
            std::memcpy(values, weight + row * to.K + b * BLOCK, least(BLOCK, to.K - b * BLOCK) * sizeof(float));
            for (int64_t i = 0; i < BLOCK; i += LANES) zeros = fma(load(values + i), set1(0.0f), zeros);
            if (to.coding == Coding::BF16)
                pack_row_bf16(values, to, panel, b, row);
            else if (to.four_bits())
                more_zeros += 0.0f * pack_row_q4(values, to, panel, b, row);
            else
                more_zeros += 0.0f * pack_row_q8(values, to, panel, b, row);
        }
    }
    return sum(zeros) + more_zeros == 0.0f;
}

// What a row's numbers are as the factor of signed codes; with SHIFTED 128 more, which `surplus` takes out again.
inline const uint8_t* factors(const Activations& x, int64_t row) {
    return SHIFTED ? x.shifted(row) : reinterpret_cast<const uint8_t*>(x.codes(row));
}

inline I16 surplus(const uint8_t* codes) {
    I16 sum = iset1(0);
    if constexpr (SHIFTED) {
        constexpr uint8_t EACH[QUAD] = {128, 128, 128, 128};
        for (int64_t j = 0; j < BLOCK / QUAD; j++) sum = dot4(sum, load_bytes(codes + j * PANEL * QUAD), EACH);
        sum = isub(iset1(0), sum);
    }
    return sum;
}

inline void fetch(const void* p) { __builtin_prefetch(static_cast<const char*>(p) + AHEAD); }

// One block of a panel times R rows of a tile, added to their totals; `fresh`: the weights come from memory.
template <int R>
inline void block_q8(const uint8_t* codes, const uint16_t* halves, const uint8_t* a, const float* scales, bool fresh,
                     F16* total) {
    I16 dots[R];
    const I16 start = surplus(codes);
    for (int r = 0; r < R; r++) dots[r] = start;
    for (int64_t j = 0; j < BLOCK / QUAD; j++) {
        if (fresh) fetch(codes + j * PANEL * QUAD);
        const Bytes quad = load_bytes(codes + j * PANEL * QUAD);
        for (int r = 0; r < R; r++) dots[r] = dot4(dots[r], quad, a + r * BLOCK + j * QUAD);
    }
    const F16 scale = load_half(halves);
    for (int r = 0; r < R; r++) total[r] = fma(to_float(dots[r]), mul(scale, set1(scales[r])), total[r]);
}

// Half a block of a panel in 4 bits; `minima` null: 8 is taken from the codes.
template <int R>
inline void half_q4(const uint8_t* codes, const uint16_t* halves, const uint16_t* minima, const int8_t* a,
                    const float* scales, const float* sums, bool fresh, F16* total) {
    I16 dots[R];
    for (int r = 0; r < R; r++) dots[r] = iset1(0);
    for (int64_t j = 0; j < HALF / 2 / QUAD; j++) {
        if (fresh) fetch(codes + j * PANEL * QUAD);
        const Bytes both = load_bytes(codes + j * PANEL * QUAD);
        const Bytes low = low_nibbles(both), high = high_nibbles(both);
        for (int r = 0; r < R; r++) {
            const int8_t* quad = a + r * BLOCK + j * QUAD;
            dots[r] = dot4_small(dot4_small(dots[r], low, quad), high, quad + HALF / 2);
        }
    }
    const F16 scale = load_half(halves), minimum = minima ? load_half(minima) : mul(scale, set1(-8.0f));
    for (int r = 0; r < R; r++) {
        total[r] = fma(to_float(dots[r]), mul(scale, set1(scales[r])), total[r]);
        total[r] = fma(minimum, set1(sums[r]), total[r]);
    }
}

template <int R>
inline void block_bf16(const uint8_t* pairs, const uint16_t* a, bool fresh, F16* total) {
    for (int64_t j = 0; j < BLOCK / 2; j++) {
        if (fresh) fetch(pairs + j * LINE);
        const Bytes pair = load_bytes(pairs + j * LINE);
        for (int r = 0; r < R; r++) total[r] = dot2(total[r], pair, a + r * BLOCK + 2 * j);
    }
}

// S panels, `apart` from one another, times R rows of one tile; out is [S, R].
template <int S, int R>
inline void panels_times_rows(const Activations& x, int64_t row, const Panels& w, int64_t first, int64_t apart,
                              F16* out) {
    const float *scales = x.scales(row), *sums = x.sums(row);
    const bool fresh = row == 0;
    for (int i = 0; i < S * R; i++) out[i] = set1(0.0f);
    if (w.coding == Coding::BF16) {
        const uint16_t* a = x.narrow(row);
        for (int64_t b = 0; b < w.n_blocks; b++)
            for (int s = 0; s < S; s++)
                block_bf16<R>(w.codes(first + s * apart) + b * PANEL * BLOCK * 2, a + b * BLOCK * TILE, fresh,
                              out + s * R);
        return;
    }
    if (w.coding == Coding::Q8) {
        const uint8_t* a = factors(x, row);
        for (int64_t b = 0; b < w.n_blocks; b++)
            for (int s = 0; s < S; s++)
                block_q8<R>(w.codes(first + s * apart) + b * PANEL * BLOCK, w.scales(first + s * apart) + b * PANEL,
                            a + b * BLOCK * TILE, scales + b * TILE, fresh, out + s * R);
        return;
    }
    const bool has_minima = w.coding == Coding::Q4_1;
    const int8_t* a = x.codes(row);
    for (int64_t half = 0; half < w.n_blocks * (BLOCK / HALF); half++) {
        const int64_t b = half / (BLOCK / HALF);
        const int8_t* here = a + b * BLOCK * TILE + half % (BLOCK / HALF) * HALF;
        for (int s = 0; s < S; s++) {
            const int64_t panel = first + s * apart;
            half_q4<R>(w.codes(panel) + half * PANEL * HALF / 2, w.scales(panel) + half * PANEL,
                       has_minima ? w.minima(panel) + half * PANEL : nullptr, here, scales + b * TILE,
                       sums + half * TILE, fresh, out + s * R);
        }
    }
}

inline void put(float* out, int64_t n, Store store_, F16 x) {
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
    for (int r = 0; r < R; r++) put(out + (row + r) * stride + panel * PANEL, w.N - panel * PANEL, store_, result[r]);
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
                put(out + begin, w.N - begin, store_, result[s]);
            }
        }
        first += apart * STREAMS;
    }
    // Panels outside, rows inside: a panel comes from memory once and stays in the first cache for all rows.
    static_assert(TILE % ROWS == 0, "rows multiplied together are of one tile");
    for (int64_t panel = first; panel < last; panel++)
        for (int64_t row = 0; row < M; row += ROWS)
            rows_times_panel<ROWS>(x, row, least(ROWS, M - row), w, panel, out, stride, store_);
}

}  // namespace
