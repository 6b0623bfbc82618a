// One query over paged keys and values; a part of kernels.inl. An `Entry` of a page is bf16 or a code of 8 bits, which
// bf16 holds exactly: its token's scale multiplies the score, or the weight, instead.

namespace {

// Sixteen pairs of codes as bf16, where the instructions have no better way.
template <typename Code>
inline Bytes load_pairs(const Code* p) {
    uint16_t wide[32];
    for (int i = 0; i < 32; i++) {
        const float code = static_cast<float>(p[i]);
        uint32_t bits;
        std::memcpy(&bits, &code, 4);
        wide[i] = static_cast<uint16_t>(bits >> 16);
    }
    return load_pairs(wide);
}

// The pages of one kv head, and how many of their tokens count.
template <typename Entry>
struct Pages {
    const uint8_t *const *key_pages, *const *value_pages;
    int64_t length, size, head_dim;

    int64_t tiles_each() const { return (size + LANES - 1) / LANES; }
    int64_t n_tiles() const {
        const int64_t n_full = (length - 1) / size;
        return n_full * tiles_each() + (length - n_full * size + LANES - 1) / LANES;
    }
    const Entry* keys(int64_t page) const { return reinterpret_cast<const Entry*>(key_pages[page]); }
    const Entry* values(int64_t page) const { return reinterpret_cast<const Entry*>(value_pages[page]); }
    const Entry* tile(int64_t t) const { return keys(t / tiles_each()) + t % tiles_each() * head_dim * LANES; }
    int64_t first_token(int64_t t) const { return t / tiles_each() * size + t % tiles_each() * LANES; }
    int64_t pairs_each() const { return (size + 1) / 2; }
};

// Multiplies what is of a token by its scale in `pages`; nothing where those are in bf16.
template <typename Entry>
inline void scale_tokens(float* x, int64_t length, int64_t size, int64_t head_dim, const uint8_t* const* pages) {
    if constexpr (sizeof(Entry) == 1)
        for (int64_t begin = 0; begin < length; begin += size, pages++) {
            const float* scales = reinterpret_cast<const float*>(*pages + head_dim * round_up(size, LANES));
            const int64_t n = least(size, length - begin);
            for (int64_t i = 0; i < n; i += LANES) {
                float* to = x + begin + i;
                store_part(to, n - i, mul(load_part(to, n - i, 0.0f), load_part(scales + i, n - i, 0.0f)));
            }
        }
}

// Scores of T tiles of keys under H query heads; a key is read once for all of them.
template <int T, int H, typename Entry>
inline void score(const uint16_t* q, const Pages<Entry>& pages, int64_t tile, float* scores, int64_t width) {
    const Entry* keys[T];
    F16 dots[T * H];
    for (int t = 0; t < T; t++) keys[t] = pages.tile(tile + t);
    for (int i = 0; i < T * H; i++) dots[i] = set1(0.0f);
    for (int64_t d = 0; d < pages.head_dim; d += 2) {
        Bytes key[T];
        for (int t = 0; t < T; t++) key[t] = load_pairs(keys[t] + d * LANES);
        for (int h = 0; h < H; h++)
            for (int t = 0; t < T; t++) dots[h * T + t] = dot2(dots[h * T + t], key[t], q + h * pages.head_dim + d);
    }
    // Lanes past a short page's end are written over by the next page's.
    for (int t = 0; t < T; t++)
        for (int h = 0; h < H; h++) store(scores + h * width + pages.first_token(tile + t), dots[h * T + t]);
}

// Tokens before a row's window weigh nothing.
inline void hide(float* scores, int64_t length, int64_t window) {
    if (window)
        for (int64_t t = 0; t < length - window; t++) scores[t] = -INFINITY;
}

// exp(score - peak) in place of `length` scores, 0 in the lanes after them; returns the inverse of their sum.
inline float soften(float* scores, int64_t length) {
    const int64_t end = (length + LANES - 1) / LANES * LANES;
    for (int64_t t = length; t < end; t++) scores[t] = -INFINITY;
    F16 peak = set1(-INFINITY), total = set1(0.0f);
    for (int64_t t = 0; t < end; t += LANES) peak = max(peak, load(scores + t));
    const F16 best = set1(largest_of(peak));
    for (int64_t t = 0; t < end; t += LANES) {
        const F16 weight = exp16(sub(load(scores + t), best));
        store(scores + t, weight);
        total = add(total, weight);
    }
    return 1.0f / sum(total);
}

// The weights of a head as bf16, in pairs of tokens of one page.
template <typename Entry>
inline void pair_up(const float* weights, const Pages<Entry>& pages, uint16_t* pairs) {
    if (pages.size % 2 == 0) {
        for (int64_t t = 0; t < pages.length; t += LANES) store_bf16(pairs + t, load(weights + t));
        return;
    }
    for (int64_t t = 0; t < pages.length; t++) {
        uint16_t lanes[LANES];
        store_bf16(lanes, set1(weights[t]));
        uint16_t* to = pairs + t / pages.size * pages.pairs_each() * 2 + t % pages.size;
        to[0] = lanes[0];
        to[1] = 0;  // unless a token of this page follows
    }
}

// Sixteen pairs whose second is no token's: a 0 there, since what stands in memory may be NaN, which no weight hides.
template <typename Entry>
inline Bytes load_firsts(const Entry* p) {
    Entry pairs[2 * LANES];
    for (int64_t i = 0; i < LANES; i++) {
        pairs[2 * i] = p[2 * i];
        pairs[2 * i + 1] = 0;
    }
    return load_pairs(pairs);
}

// Adds C times sixteen columns of a pair of tokens, by the weights of H heads.
template <int C, int H>
inline void mix_pair(const Bytes* value, const uint16_t* pair, int64_t width, F16* mixed) {
    for (int h = 0; h < H; h++)
        for (int c = 0; c < C; c++) mixed[h * C + c] = dot2(mixed[h * C + c], value[c], pair + h * width);
}

// Columns d to d + 16 C of the values, mixed by the weights of H heads.
template <int C, int H, typename Entry>
inline void mix(const uint16_t* weights, int64_t width, const Pages<Entry>& pages, int64_t d, const float* inverse,
                float* out) {
    F16 mixed[C * H];
    for (int i = 0; i < C * H; i++) mixed[i] = set1(0.0f);
    for (int64_t begin = 0, page = 0; begin < pages.length; begin += pages.size, page++) {
        const Entry* values = pages.values(page) + 2 * d;
        const uint16_t* pair = weights + page * pages.pairs_each() * 2;
        const int64_t n = least(pages.size, pages.length - begin);
        Bytes value[C];
        for (int64_t i = 0; i < n / 2; i++, values += 2 * pages.head_dim, pair += 2) {
            for (int c = 0; c < C; c++) value[c] = load_pairs(values + 2 * c * LANES);
            mix_pair<C, H>(value, pair, width, mixed);
        }
        if (n % 2) {
            for (int c = 0; c < C; c++) value[c] = load_firsts(values + 2 * c * LANES);
            mix_pair<C, H>(value, pair, width, mixed);
        }
    }
    for (int h = 0; h < H; h++)
        for (int c = 0; c < C; c++) {
            const int64_t begin = d + c * LANES;
            store_part(out + h * pages.head_dim + begin, pages.head_dim - begin,
                       mul(mixed[h * C + c], set1(inverse[h])));
        }
}

// Scores of the keys in tiles [first, last) under H heads, `width` floats apart.
template <int H, typename Entry>
inline void score_tiles(const float* q, const Pages<Entry>& pages, int64_t first, int64_t last, uint16_t* narrow_q,
                        float* scores, int64_t width) {
    const int64_t n = H * pages.head_dim;
    const F16 scale = set1(1.0f / sqrtf(static_cast<float>(pages.head_dim)));
    for (int64_t i = 0; i < n; i += LANES) store_bf16(narrow_q + i, mul(load_part(q + i, n - i, 0.0f), scale));
    int64_t tile = first;
    for (; tile + AT_ONCE <= last; tile += AT_ONCE) score<AT_ONCE, H>(narrow_q, pages, tile, scores, width);
    for (; tile < last; tile++) score<1, H>(narrow_q, pages, tile, scores, width);
}

// A head's scores become weights, in pairs; returns the inverse of their sum.
template <typename Entry>
inline float weigh_tokens(const Pages<Entry>& pages, int64_t window, float* scores, uint16_t* pairs) {
    scale_tokens<Entry>(scores, pages.length, pages.size, pages.head_dim, pages.key_pages);
    hide(scores, pages.length, window);
    const float inverse = soften(scores, pages.length);
    scale_tokens<Entry>(scores, pages.length, pages.size, pages.head_dim, pages.value_pages);
    pair_up(scores, pages, pairs);
    return inverse;
}

// Columns [first, last) of the values, mixed by the weights of H heads.
template <int H, typename Entry>
inline void mix_columns(const uint16_t* pairs, int64_t width, const Pages<Entry>& pages, int64_t first, int64_t last,
                        const float* inverse, float* out) {
    int64_t d = first;
    for (; d + AT_ONCE * LANES <= last; d += AT_ONCE * LANES) mix<AT_ONCE, H>(pairs, 2 * width, pages, d, inverse, out);
    for (; d < last; d += LANES) mix<1, H>(pairs, 2 * width, pages, d, inverse, out);
}

constexpr int HEADS = 4;

// work(heads so many, the first of them) for all of a group, HEADS at a time.
template <int H = HEADS, typename Work>
inline void by_heads(int64_t group, const Work& work, int64_t first = 0) {
    for (; group - first >= H; first += H) work(std::integral_constant<int, H>(), first);
    if constexpr (H > 1) {
        if (first < group) by_heads<H - 1>(group, work, first);
    }
}

template <typename Entry>
void attend_rows(const Attention& a) {
    for (int64_t row = 0; row < a.n_rows; row++) {
        const Pages<Entry> pages{a.key_pages, a.value_pages, a.length + row, a.page_size, a.head_dim};
        const int64_t width = score_width(pages.length);
        by_heads(a.group, [&](auto heads, int64_t h) {
            constexpr int H = decltype(heads)::value;
            uint16_t* pairs = a.narrow + H * a.head_dim + LANES;
            score_tiles<H>(a.q + row * a.stride + h * a.head_dim, pages, 0, pages.n_tiles(), a.narrow, a.scores, width);
            float inverse[H];
            for (int i = 0; i < H; i++)
                inverse[i] = weigh_tokens(pages, a.window, a.scores + i * width, pairs + 2 * i * width);
            mix_columns<H>(pairs, width, pages, 0, a.head_dim, inverse, a.out + row * a.out_stride + h * a.head_dim);
        });
    }
}

void attend(const Attention& a) { a.eight_bits ? attend_rows<int8_t>(a) : attend_rows<uint16_t>(a); }

// The same of one row in parts, which give the same bits.

template <typename Entry>
inline Pages<Entry> first_row(const Attention& a) {
    return {a.key_pages, a.value_pages, a.length, a.page_size, a.head_dim};
}

template <typename Entry>
void score_part_of(const Attention& a, int64_t first, int64_t last, uint16_t* room) {
    const auto pages = first_row<Entry>(a);
    const int64_t width = score_width(a.length), n_tiles = pages.n_tiles();
    by_heads(a.group, [&](auto heads, int64_t h) {
        score_tiles<decltype(heads)::value>(a.q + h * a.head_dim, pages, first, least(last, n_tiles), room,
                                            a.scores + h * width, width);
    });
}

template <typename Entry>
void mix_part_of(const Attention& a, int64_t first, int64_t last, const float* inverse) {
    const int64_t width = score_width(a.length);
    by_heads(a.group, [&](auto heads, int64_t h) {
        mix_columns<decltype(heads)::value>(a.narrow + 2 * h * width, width, first_row<Entry>(a), first,
                                            least(last, a.head_dim), inverse + h, a.out + h * a.head_dim);
    });
}

void score_part(const Attention& a, int64_t first, int64_t last, uint16_t* room) {
    (a.eight_bits ? score_part_of<int8_t> : score_part_of<uint16_t>)(a, first, last, room);
}

void weigh_part(const Attention& a, int64_t head, float* inverse) {
    const int64_t width = score_width(a.length);
    float* scores = a.scores + head * width;
    uint16_t* pairs = a.narrow + 2 * head * width;
    inverse[head] = a.eight_bits ? weigh_tokens(first_row<int8_t>(a), a.window, scores, pairs)
                                 : weigh_tokens(first_row<uint16_t>(a), a.window, scores, pairs);
}

void mix_part(const Attention& a, int64_t first, int64_t last, const float* inverse) {
    (a.eight_bits ? mix_part_of<int8_t> : mix_part_of<uint16_t>)(a, first, last, inverse);
}

constexpr AttentionInParts IN_PARTS{clean<score_part>, clean<weigh_part>, clean<mix_part>};

}  // namespace
