// The kernels in terms of sixteen lanes; included once for each instruction set, after its simd_*.h.

#include <cmath>
#include <cstring>

#include "half.h"
#include "kernels.h"

namespace {

using namespace smallpress;

// Not std::min: a template's or an inline function's code may be shared with files for older processors, and nothing
// here may be.
inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// exp(x) to 2 ulp for x in (-87, 88], 0 below: 2^n times a polynomial on [-ln2/2, ln2/2] (the Cephes library's expf).
inline F16 exp16(F16 given) {
    const F16 lowest = set1(-87.0f), x = max(min(given, set1(88.0f)), lowest);
    const F16 n = round(mul(x, set1(1.44269504f)));
    F16 r = fma(n, set1(-0.693359375f), x);
    r = fma(n, set1(2.12194440e-4f), r);
    F16 p = set1(1.9875691500e-4f);
    constexpr float REST[] = {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
    for (const float c : REST) p = fma(p, r, set1(c));
    return where_above(given, lowest, mul(add(fma(p, mul(r, r), r), set1(1.0f)), pow2(n)));
}

// Sixteen floats from p, those from the n-th on being `rest`.
inline F16 load_part(const float* p, int64_t n, float rest) {
    if (n >= 16) return load(p);
    float lanes[16];
    for (int64_t i = 0; i < 16; i++) lanes[i] = i < n ? p[i] : rest;
    return load(lanes);
}

inline void store_part(float* p, int64_t n, F16 x) {
    if (n >= 16) return store(p, x);
    float lanes[16];
    store(lanes, x);
    std::memcpy(p, lanes, n * sizeof(float));
}

constexpr int64_t TILE = Activations::TILE;

void quantize(const float* x, int64_t n, const Activations& to, int64_t row) {
    int8_t* codes = to.codes(row);
    float* scales = to.scales(row);
    int32_t* offsets = to.offsets(row);
    for (int64_t begin = 0; begin < n; begin += BLOCK, codes += BLOCK * TILE, scales += TILE, offsets += TILE) {
        const F16 left = load_part(x + begin, n - begin, 0.0f);
        const F16 right = n - begin > 16 ? load_part(x + begin + 16, n - begin - 16, 0.0f) : set1(0.0f);
        const float peak = largest_of(max(abs(left), abs(right)));
        const F16 inverse = set1(peak > 0.0f ? 127.0f / peak : 0.0f);
        const F16 a = round(mul(left, inverse)), c = round(mul(right, inverse));
        *scales = peak / 127.0f;
        *offsets = -128 * static_cast<int32_t>(sum(add(a, c)));
        store_int8(codes, a);
        store_int8(codes + 16, c);
    }
}

void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* out) {
    F16 squares = set1(0.0f);
    for (int64_t i = 0; i < n; i += 16) {
        const F16 v = load_part(x + i, n - i, 0.0f);
        squares = fma(v, v, squares);
    }
    const F16 inverse = set1(1.0f / sqrtf(sum(squares) / static_cast<float>(n) + eps));
    for (int64_t i = 0; i < n; i += 16) {
        const F16 scaled = mul(load_part(x + i, n - i, 0.0f), inverse);
        store_part(out + i, n - i, mul(scaled, load_part(weight + i, n - i, 0.0f)));
    }
}

void swiglu(const float* gate, const float* up, int64_t n, float* out) {
    const F16 one = set1(1.0f);
    for (int64_t i = 0; i < n; i += 16) {
        const F16 g = load_part(gate + i, n - i, 0.0f);
        const F16 silu = div(g, add(one, exp16(sub(set1(0.0f), g))));
        store_part(out + i, n - i, mul(silu, load_part(up + i, n - i, 0.0f)));
    }
}

bool pack_q8(const float* weight, int64_t n_rows, const PanelsQ8& to, int64_t panel) {
    uint8_t* codes = to.codes(panel);
    uint16_t* scales = to.scales(panel);
    F16 zeros = set1(0.0f);  // a number times 0 is 0, infinity and NaN times 0 are NaN
    for (int64_t b = 0; b < to.n_blocks; b++, codes += PANEL * BLOCK, scales += PANEL) {
        const int64_t begin = b * BLOCK, n = least(BLOCK, to.K - begin);
        for (int64_t row = 0; row < PANEL; row++) {
            float values[BLOCK] = {};
            if (row < n_rows) std::memcpy(values, weight + row * to.K + begin, n * sizeof(float));
            const F16 left = load(values), right = load(values + 16);
            zeros = fma(left, set1(0.0f), fma(right, set1(0.0f), zeros));
            const uint16_t half = to_half(largest_of(max(abs(left), abs(right))) / 127.0f);
            alignas(64) uint16_t halves[16] = {half};
            float scale[16];
            store(scale, load_half(halves));
            const F16 inverse = set1(scale[0] > 0.0f ? 1.0f / scale[0] : 0.0f);
            const F16 low = set1(-127.0f), high = set1(127.0f);  // the scale may have been rounded down
            int8_t signed_codes[BLOCK];
            store_int8(signed_codes, max(low, min(high, round(mul(left, inverse)))));
            store_int8(signed_codes + 16, max(low, min(high, round(mul(right, inverse)))));
            scales[row] = half;
            for (int64_t k = 0; k < BLOCK; k++)
                codes[k / QUAD * PANEL * QUAD + row * QUAD + k % QUAD] = static_cast<uint8_t>(signed_codes[k] + 128);
        }
    }
    return sum(zeros) == 0.0f;
}

// One panel times R rows of one tile.
template <int R>
inline void panel_q8(const Activations& x, int64_t row, const PanelsQ8& w, int64_t panel, F16* out) {
    const uint8_t* codes = w.codes(panel);
    const uint16_t* halves = w.scales(panel);
    const int8_t* a = x.codes(row);
    const float* scales = x.scales(row);
    const int32_t* offsets = x.offsets(row);
    F16 total[R];
    for (int r = 0; r < R; r++) total[r] = set1(0.0f);
    for (int64_t b = 0; b < w.n_blocks; b++) {
        I16 dots[R];
        for (int r = 0; r < R; r++) dots[r] = iset1(offsets[r]);
        for (int j = 0; j < BLOCK / QUAD; j++) {
            const Bytes quad = load_bytes(codes + j * PANEL * QUAD);
            for (int r = 0; r < R; r++) dots[r] = dot4(dots[r], quad, a + r * BLOCK + j * QUAD);
        }
        const F16 scale = load_half(halves);
        for (int r = 0; r < R; r++) total[r] = fma(to_float(dots[r]), mul(scale, set1(scales[r])), total[r]);
        codes += PANEL * BLOCK;
        halves += PANEL;
        a += BLOCK * TILE;
        scales += TILE;
        offsets += TILE;
    }
    for (int r = 0; r < R; r++) out[r] = total[r];
}

// S panels far apart times one row: as many streams from memory, which one core can follow faster than a single one.
template <int S>
inline void streams_q8(const Activations& x, const PanelsQ8& w, int64_t first, int64_t apart, F16* out) {
    const int8_t* a = x.codes(0);
    const float* scales = x.scales(0);
    const int32_t* offsets = x.offsets(0);
    const uint8_t* codes[S];
    const uint16_t* halves[S];
    F16 total[S];
    for (int s = 0; s < S; s++) {
        codes[s] = w.codes(first + s * apart);
        halves[s] = w.scales(first + s * apart);
        total[s] = set1(0.0f);
    }
    for (int64_t b = 0; b < w.n_blocks; b++) {
        I16 dots[S];
        for (int s = 0; s < S; s++) dots[s] = iset1(offsets[b * TILE]);
        for (int j = 0; j < BLOCK / QUAD; j++)
            for (int s = 0; s < S; s++)
                dots[s] = dot4(dots[s], load_bytes(codes[s] + (b * BLOCK + j * QUAD) * PANEL), a + j * QUAD);
        for (int s = 0; s < S; s++)
            total[s] = fma(to_float(dots[s]), mul(load_half(halves[s] + b * PANEL), set1(scales[b * TILE])), total[s]);
        a += BLOCK * TILE;
    }
    for (int s = 0; s < S; s++) out[s] = total[s];
}

inline void put(float* out, int64_t n, Store store_, F16 x) {
    store_part(out, n, store_ == Store::ADD ? add(load_part(out, n, 0.0f), x) : x);
}

// `n` <= R rows of one tile.
template <int R>
void rows_q8(const Activations& x, int64_t row, int64_t n, const PanelsQ8& w, int64_t panel, float* out, int64_t stride,
             Store store_) {
    if constexpr (R > 1) {
        if (n < R) return rows_q8<R - 1>(x, row, n, w, panel, out, stride, store_);
    }
    F16 result[R];
    panel_q8<R>(x, row, w, panel, result);
    for (int r = 0; r < R; r++) put(out + (row + r) * stride + panel * PANEL, w.N - panel * PANEL, store_, result[r]);
}

constexpr int STREAMS = 4;

void product_q8(const Activations& x, int64_t M, const PanelsQ8& w, int64_t first, int64_t last, float* out,
                int64_t stride, Store store_) {
    if (M == 1) {
        const int64_t apart = (last - first) / STREAMS;
        for (int64_t i = 0; i < apart; i++) {
            F16 result[STREAMS];
            streams_q8<STREAMS>(x, w, first + i, apart, result);
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
            rows_q8<ROWS>(x, row, least(ROWS, M - row), w, panel, out, stride, store_);
}

void attend(const float* q, const uint16_t* const* key_pages, const uint16_t* const* value_pages, int64_t length,
            int64_t page_size, int64_t group, int64_t head_dim, float* scores, float* out) {
    const int64_t n_pages = (length + page_size - 1) / page_size, width = score_width(length);
    const float scale = 1.0f / sqrtf(static_cast<float>(head_dim));
    for (int64_t page = 0; page < n_pages; page++) {
        const uint16_t* keys = key_pages[page];
        const int64_t n_here = least(page_size, length - page * page_size);
        for (int64_t begin = 0; begin < n_here; begin += LANES, keys += head_dim * LANES) {
            for (int64_t h = 0; h < group; h++) {
                F16 dots = set1(0.0f);
                for (int64_t d = 0; d < head_dim; d++)
                    dots = fma(set1(q[h * head_dim + d]), load_bf16(keys + d * LANES), dots);
                // Lanes past a short page's end are written over by the next page's.
                store(scores + h * width + page * page_size + begin, mul(dots, set1(scale)));
            }
        }
    }
    for (int64_t h = 0; h < group; h++) {
        float* row = scores + h * width;
        const int64_t end = (length + LANES - 1) / LANES * LANES;
        for (int64_t t = length; t < end; t++) row[t] = -INFINITY;
        F16 peak = set1(-INFINITY), total = set1(0.0f);
        for (int64_t t = 0; t < end; t += LANES) peak = max(peak, load(row + t));
        const F16 best = set1(largest_of(peak));
        for (int64_t t = 0; t < end; t += LANES) {
            const F16 weight = exp16(sub(load(row + t), best));
            store(row + t, weight);
            total = add(total, weight);
        }
        const F16 inverse = set1(1.0f / sum(total));
        for (int64_t d = 0; d < head_dim; d += LANES) {
            F16 mixed = set1(0.0f);
            for (int64_t page = 0, t = 0; page < n_pages; page++) {
                const uint16_t* values = value_pages[page] + d;
                for (int64_t i = 0; i < page_size && t < length; i++, t++)
                    mixed = fma(set1(row[t]), load_bf16(values + i * head_dim), mixed);
            }
            store_part(out + h * head_dim + d, head_dim - d, mul(mixed, inverse));
        }
    }
}

void to_bf16(const float* x, int64_t n, uint16_t* out) {
    for (int64_t i = 0; i < n; i += 16) {
        const F16 v = load_part(x + i, n - i, 0.0f);
        if (n - i >= 16) {
            store_bf16(out + i, v);
        } else {
            uint16_t lanes[16];
            store_bf16(lanes, v);
            std::memcpy(out + i, lanes, (n - i) * sizeof(uint16_t));
        }
    }
}

// NaN where any of them is not finite; see pack_q8.
float largest(const float* x, int64_t n) {
    F16 best = set1(-INFINITY), zeros = set1(0.0f);
    for (int64_t i = 0; i < n; i += 16) {
        const F16 v = load_part(x + i, n - i, x[0]);
        best = max(best, v);
        zeros = fma(v, set1(0.0f), zeros);
    }
    return largest_of(best) + sum(zeros);
}

double weigh(const float* x, int64_t n, float best, float inverse_temperature, float* weights, double* sums) {
    const F16 top = set1(best), cool = set1(inverse_temperature);
    double total = 0.0;
    for (int64_t begin = 0; begin < n; begin += SUMMED) {
        F16 part = set1(0.0f);
        for (int64_t i = begin; i < least(begin + SUMMED, n); i += 16) {
            const F16 weight = exp16(mul(sub(load_part(x + i, n - i, -INFINITY), top), cool));
            store_part(weights + i, n - i, weight);
            part = add(part, weight);
        }
        total += sums[begin / SUMMED] = sum(part);
    }
    return total;
}

constexpr Kernels TABLE{KERNELS_NAME, quantize, rms_norm, swiglu, pack_q8, product_q8, attend, to_bf16, largest, weigh};

}  // namespace
