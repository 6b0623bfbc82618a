// The kernels in terms of sixteen lanes; included once for each instruction set, after its simd_*.h.

#include <cmath>
#include <cstring>
#include <type_traits>

#include "half.h"
#include "kernels.h"

namespace {

using namespace smallpress;

// Not std::min: a template's or an inline function's code may be shared with files for older processors, and nothing
// here may be.
inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

inline void clear_uppers() {
#if defined(__AVX__)
    _mm256_zeroupper();
#endif
}

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

// A kernel as a table holds it: behind it the upper halves of the registers are zero. Were they not, every instruction
// for any processor, which the callers are made of, would wait for them; and compilers forget it behind a call that
// takes or returns sixteen lanes.
template <auto KERNEL>
struct Clean;
template <typename Result, typename... Given, Result (*KERNEL)(Given...)>
struct Clean<KERNEL> {
    static Result call(Given... given) {
        if constexpr (std::is_void_v<Result>) {
            KERNEL(given...);
            clear_uppers();
        } else {
            const Result result = KERNEL(given...);
            clear_uppers();
            return result;
        }
    }
};
template <auto KERNEL>
constexpr auto clean = Clean<KERNEL>::call;

}  // namespace

#include "attention.inl"
#include "latent.inl"
#include "hadamard.inl"
#include "product.inl"
#include "training.inl"

namespace {

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

void geglu(const float* gate, const float* up, int64_t n, float* out) {
    const F16 one = set1(1.0f), slope = set1(-1.59576912f), bend = set1(-1.59576912f * 0.044715f);
    for (int64_t i = 0; i < n; i += 16) {
        const F16 g = load_part(gate + i, n - i, 0.0f);
        const F16 gelu = div(g, add(one, exp16(mul(g, fma(bend, mul(g, g), slope)))));
        store_part(out + i, n - i, mul(gelu, load_part(up + i, n - i, 0.0f)));
    }
}

void dots(const float* x, const float* w, int64_t n_rows, int64_t n, float* out) {
    constexpr int64_t EACH = 4;
    for (int64_t row = 0; row < n_rows; row += EACH) {
        const int64_t rows = least(EACH, n_rows - row);
        F16 total[EACH];
        for (F16& one : total) one = set1(0.0f);
        for (int64_t i = 0; i < n; i += 16) {
            const F16 here = load_part(x + i, n - i, 0.0f);
            for (int64_t r = 0; r < rows; r++)
                total[r] = fma(here, load_part(w + (row + r) * n + i, n - i, 0.0f), total[r]);
        }
        for (int64_t r = 0; r < rows; r++) out[row + r] = sum(total[r]);
    }
}

void narrow_dots(const float* x, const uint16_t* a, int64_t rank, int64_t n, float* out) {
    constexpr int64_t EACH = 4;
    const int64_t stride = round_up(n, LANES);
    for (int64_t row = 0; row < rank; row += EACH) {
        const int64_t rows = least(EACH, rank - row);
        F16 total[EACH];
        for (F16& one : total) one = set1(0.0f);
        for (int64_t i = 0; i < n; i += 16) {
            const F16 here = load_part(x + i, n - i, 0.0f);
            for (int64_t r = 0; r < rows; r++) total[r] = fma(here, load_bf16(a + (row + r) * stride + i), total[r]);
        }
        for (int64_t r = 0; r < rows; r++) out[row + r] = sum(total[r]);
    }
}

void widen_add(const float* x, const uint16_t* b, int64_t rank, int64_t n, float* out) {
    constexpr int64_t EACH = 4;
    const int64_t stride = round_up(n, LANES);
    for (int64_t first = 0; first < n; first += EACH * LANES) {
        const int64_t many = least(EACH, (n - first + LANES - 1) / LANES);
        F16 total[EACH];
        for (int64_t i = 0; i < many; i++) total[i] = load_part(out + first + i * LANES, n - first - i * LANES, 0.0f);
        for (int64_t r = 0; r < rank; r++) {
            const F16 here = set1(x[r]);
            for (int64_t i = 0; i < many; i++)
                total[i] = fma(here, load_bf16(b + r * stride + first + i * LANES), total[i]);
        }
        for (int64_t i = 0; i < many; i++) store_part(out + first + i * LANES, n - first - i * LANES, total[i]);
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

// NaN where any of them is not finite; see pack.
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

int64_t exercise(int64_t n) {
    constexpr int CHAINS = 12;
    alignas(64) const uint8_t codes[LINE] = {1, 2, 3, 4, 5, 6, 7, 8};
    const Bytes w = load_bytes(codes);
    I16 dots[CHAINS];
    for (int c = 0; c < CHAINS; c++) dots[c] = iset1(c);
    const auto a = held(codes);
    for (int64_t i = 0; i < n; i++)
        for (int c = 0; c < CHAINS; c++) dots[c] = dot4(dots[c], w, a);
    F16 total = set1(0.0f);
    for (int c = 0; c < CHAINS; c++) total = add(total, to_float(dots[c]));
    volatile float kept = sum(total);  // else the compiler would leave all of it out
    (void)kept;
    return n * CHAINS * LANES * QUAD;
}

constexpr Kernels TABLE{KERNELS_NAME,         clean<quantize>,    clean<narrow>,    clean<rms_norm>, clean<swiglu>,
                        clean<pack>,          clean<product>,     clean<attend>,    clean<to_bf16>,  clean<largest>,
                        clean<weigh>,         clean<exercise>,    &TRAINING,        clean<geglu>,    clean<dots>,
                        clean<attend_latent>, clean<narrow_dots>, clean<widen_add>, &IN_PARTS};

}  // namespace
