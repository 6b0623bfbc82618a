// A query over latents, its heads in the lanes; a part of kernels.inl.

namespace {

static_assert(LATENT_HEADS == LANES, "a head in each lane");

// Scores of T tokens from `token` on.
template <int T>
inline void score_latents(const LatentSpan& s, int64_t token, float* scores) {
    const uint16_t* rows[T];
    F16 dots[T];
    for (int t = 0; t < T; t++) {
        rows[t] = s.pages[(token + t) / s.page_size] + (token + t) % s.page_size * s.width;
        dots[t] = set1(0.0f);
    }
    for (int64_t d = 0; d < s.width; d += 2) {
        const Bytes q = load_pairs(s.q + d * LANES);
        for (int t = 0; t < T; t++) dots[t] = dot2(dots[t], q, rows[t] + d);
    }
    for (int t = 0; t < T; t++) store(scores + t * LANES, dots[t]);
}

// Sixteen times C columns of the latents, from `d` on, mixed for H heads.
template <int C, int H>
inline void mix_latents(const LatentSpan& s, const float* weights, int64_t d, float* out) {
    F16 mixed[C * H];
    for (int i = 0; i < C * H; i++) mixed[i] = set1(0.0f);
    for (int64_t token = s.first; token < s.last;) {
        const int64_t place = token % s.page_size, n = least(s.page_size - place, s.last - token);
        const uint16_t* row = s.pages[token / s.page_size] + place * s.width + d;
        for (int64_t t = 0; t < n; t++, row += s.width, weights += LANES) {
            F16 value[C];
            for (int c = 0; c < C; c++) value[c] = load_bf16(row + c * LANES);
            for (int h = 0; h < H; h++) {
                const F16 weight = set1(weights[h]);
                for (int c = 0; c < C; c++) mixed[h * C + c] = fma(value[c], weight, mixed[h * C + c]);
            }
        }
        token += n;
    }
    for (int h = 0; h < H; h++)
        for (int c = 0; c < C; c++) {
            const int64_t begin = d + c * LANES;
            store_part(out + h * s.rank + begin, s.rank - begin, mixed[h * C + c]);
        }
}

// exp(score - the head's largest) in place of the scores, and the peaks and sums.
inline void soften_latents(const LatentSpan& s) {
    F16 peak = set1(-INFINITY), total = set1(0.0f);
    const float* end = s.weights + (s.last - s.first) * LANES;
    for (const float* p = s.weights; p < end; p += LANES) peak = max(peak, load(p));
    for (float* p = s.weights; p < end; p += LANES) {
        const F16 weight = exp16(sub(load(p), peak));
        store(p, weight);
        total = add(total, weight);
    }
    store(s.peaks, peak);
    store(s.sums, total);
}

void attend_latent(const LatentSpan& s) {
    constexpr int H = ROWS, C = ROWS >= 8 ? 2 : 1;
    static_assert(LANES % H == 0);
    int64_t token = s.first;
    for (; token + ROWS <= s.last; token += ROWS) score_latents<ROWS>(s, token, s.weights + (token - s.first) * LANES);
    for (; token < s.last; token++) score_latents<1>(s, token, s.weights + (token - s.first) * LANES);
    soften_latents(s);
    for (int64_t h = 0; h < s.n_heads; h += H) {
        float* out = s.mix + h * s.rank;
        int64_t d = 0;
        for (; d + C * LANES <= s.rank; d += C * LANES) mix_latents<C, H>(s, s.weights + h, d, out);
        for (; d < s.rank; d += LANES) mix_latents<1, H>(s, s.weights + h, d, out);
    }
}

}  // namespace
