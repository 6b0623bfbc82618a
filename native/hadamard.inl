// A span times a Hadamard matrix, which spreads what is large in one place over all: numbers of a span then differ
// little in size, and few bits hold them (Ashkboos et al. 2024, "QuaRot", section 3). Both factors of a product in 8
// bits are turned so, and the product stays what it was. A part of kernels.inl.

namespace {

// What a lane is multiplied by that meets the one S lanes below or above it.
template <int S>
struct Signs {
    alignas(64) float v[LANES];
    constexpr Signs() : v() {
        for (int i = 0; i < LANES; i++) v[i] = i & S ? -1.0f : 1.0f;
    }
};
template <int S>
constexpr Signs<S> SIGNS;

template <int S>
inline F16 butterfly(F16 x) {
    return fma(x, load(SIGNS<S>.v), swapped<S>(x));
}

// The last span of a row may be one block. Powers of two, whose product is the matrix's square: rows times 1/8, weights
// times 1/16, or 1/8 where they are one block.
constexpr float ROW_FACTOR = 1.0f / 8;
inline float weight_factor(int64_t n) { return n == SPAN ? 1.0f / 16 : 1.0f / 8; }

// `factor` times n_parts registers of a span, one block or two.
inline void hadamard(F16* v, int64_t n_parts, float factor) {
    for (int64_t i = 0; i < n_parts; i++)
        v[i] = butterfly<8>(butterfly<4>(butterfly<2>(butterfly<1>(mul(v[i], set1(factor))))));
    for (int64_t step = 1; step < n_parts; step *= 2)
        for (int64_t i = 0; i < n_parts; i++)
            if (!(i & step)) {
                const F16 a = v[i], b = v[i + step];
                v[i] = add(a, b);
                v[i + step] = sub(a, b);
            }
}

}  // namespace
