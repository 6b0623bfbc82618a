// Queries over paged keys and values in tile registers, 16 rows at a time; a part of kernels_amx.cpp.
//
// Rows are queries of one sequence, head by head of one kv head's group. A row's result does not depend on the rows
// beside it: a prompt gives the same bits at once and token by token.

namespace {

constexpr int64_t CHUNK = 16;  // tokens of values in one product: a page has a whole number of them

static_assert(CHUNK == LANES, "a tile of keys has the tokens of a chunk of values");

// Whether keys and values lie in whole tiles.
inline bool in_tiles(const Attention& a) { return a.head_dim % 32 == 0 && a.page_size % CHUNK == 0; }

// Dots are in 0 to 3; queries in 4, keys in 5; weights in 6, values in 7.
struct alignas(64) AttentionShapes {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {LINE, LINE, LINE, LINE, LINE, LINE, 2 * CHUNK, LINE};
    uint8_t rows[16] = {TILE, TILE, TILE, TILE, TILE, TILE, TILE, CHUNK / 2};
};

void take_attention_tiles(int64_t n_rows) {
    AttentionShapes shapes;
    for (const int tile : {0, 1, 2, 3, 4, 6}) shapes.rows[tile] = static_cast<uint8_t>(n_rows);
    __asm__ volatile("" : : "r"(&shapes) : "memory");  // see SHAPES
    _tile_loadconfig(&shapes);
}

// Lines of bf16 where they lie, or of codes in `room`, `apart` pairs of entries from one to the next.
inline const uint16_t* as_bf16(const uint16_t* entries, int64_t, int64_t, int64_t, uint16_t*) { return entries; }
inline const uint16_t* as_bf16(const int8_t* codes, int64_t n_lines, int64_t n_pairs, int64_t apart, uint16_t* room) {
    uint16_t* to = room;
    for (int64_t line = 0; line < n_lines; line++)
        for (int64_t i = 0; i < n_pairs; i += LANES, to += 2 * LANES)
            _mm512_storeu_si512(to, load_pairs(codes + 2 * (line * apart + i)));
    return room;
}

// A tile register loaded from what was just stored waits for it; so many chunks are brought into bf16 at a time.
template <typename Entry>
constexpr int64_t ROUND = sizeof(Entry) == 1 ? CHUNKS_AT_ONCE : 1;

// scores[row, token] of the tile of keys at `token`.
inline void score_tile(const uint16_t* q, const uint16_t* keys, int64_t head_dim, float* scores, int64_t width) {
    _tile_zero(0);
    for (int64_t d = 0; d < head_dim; d += 32) {
        _tile_loadd(4, q + d, head_dim * 2);
        _tile_loadd(5, keys + d * LANES, LINE);
        _tile_dpbf16ps(0, 4, 5);
    }
    _tile_stored(0, scores, width * 4);
}

// 16 or 64 columns of the values from `d` on, mixed by the weights of all rows: out [row, columns].
template <int C, typename Entry>
inline void mix_tiles(const uint16_t* weights, int64_t width, const uint8_t* const* chunks, int64_t n_chunks,
                      int64_t head_dim, int64_t d, float* out, uint16_t* room) {
    const int64_t line_bytes = sizeof(Entry) == 1 ? C * LINE : head_dim * 4;
    static_assert(C == 1 || C == 4);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const uint16_t* ready[ROUND<Entry>];
    for (int64_t i = 0; i < n_chunks; i++) {
        for (int64_t j = 0; i % ROUND<Entry> == 0 && j < least(ROUND<Entry>, n_chunks - i); j++)
            ready[j] = as_bf16(reinterpret_cast<const Entry*>(chunks[i + j]) + 2 * d, CHUNK / 2, C * LANES, head_dim,
                               room + j * CHUNK * C * LANES);
        const uint16_t* values = ready[i % ROUND<Entry>];
        _tile_loadd(6, weights + i * CHUNK, width * 2);
        _tile_loadd(7, values, line_bytes);
        _tile_dpbf16ps(0, 6, 7);
        if constexpr (C == 4) {
            _tile_loadd(7, values + 2 * LANES, line_bytes);
            _tile_dpbf16ps(1, 6, 7);
            _tile_loadd(7, values + 4 * LANES, line_bytes);
            _tile_dpbf16ps(2, 6, 7);
            _tile_loadd(7, values + 6 * LANES, line_bytes);
            _tile_dpbf16ps(3, 6, 7);
        }
    }
    _tile_stored(0, out, C * LINE);
    if constexpr (C == 4) {
        _tile_stored(1, out + LANES, C * LINE);
        _tile_stored(2, out + 2 * LANES, C * LINE);
        _tile_stored(3, out + 3 * LANES, C * LINE);
    }
}

// The values of a chunk's first n tokens, and zeros: what lies beyond may be anything, and 0 times NaN is NaN.
template <typename Entry>
inline void keep_first(const Entry* chunk, int64_t n, int64_t head_dim, Entry* to) {
    const int64_t whole = n / 2 * head_dim * 2;
    std::memcpy(to, chunk, whole * sizeof(Entry));
    std::memset(to + whole, 0, (CHUNK * head_dim - whole) * sizeof(Entry));
    if (n % 2)
        for (int64_t d = 0; d < head_dim * 2; d += 2) to[whole + d] = chunk[whole + d];
}

// `n_tokens` queries from `first` on under `n_heads` heads from `head` on; together at most 16.
template <typename Entry>
void attend_tile(const Attention& a, int64_t first, int64_t n_tokens, int64_t head, int64_t n_heads) {
    const int64_t D = a.head_dim, n_rows = n_tokens * n_heads, longest = a.length + first + n_tokens - 1;
    const int64_t width = score_width(longest), n_chunks = (longest + CHUNK - 1) / CHUNK;
    const int64_t chunks_each = a.page_size / CHUNK;
    uint16_t *q = a.narrow, *weights = q + TILE * D, *room = weights + TILE * width;
    Entry* tail = reinterpret_cast<Entry*>(room + CHUNKS_AT_ONCE * CHUNK * D);
    auto token = [&](int64_t row) { return first + row / n_heads; };
    auto column = [&](int64_t row) { return (head + row % n_heads) * D; };
    const F16 scale = set1(1.0f / sqrtf(static_cast<float>(D)));
    for (int64_t row = 0; row < n_rows; row++) {
        const float* from = a.q + token(row) * a.stride + column(row);
        for (int64_t d = 0; d < D; d += LANES) store_bf16(q + row * D + d, mul(load(from + d), scale));
    }
    take_attention_tiles(n_rows);
    const auto chunk = [&](const uint8_t* const* pages, int64_t i) {
        return reinterpret_cast<const Entry*>(pages[i / chunks_each]) + i % chunks_each * CHUNK * D;
    };
    const uint16_t* ready[ROUND<Entry>];
    for (int64_t i = 0; i < n_chunks; i++) {
        for (int64_t j = 0; i % ROUND<Entry> == 0 && j < least(ROUND<Entry>, n_chunks - i); j++)
            ready[j] = as_bf16(chunk(a.key_pages, i + j), D / 2, LANES, LANES, room + j * CHUNK * D);
        score_tile(q, ready[i % ROUND<Entry>], D, a.scores + i * CHUNK, width);
        a.chunks[i] = reinterpret_cast<const uint8_t*>(chunk(a.value_pages, i));
    }
    if (longest % CHUNK) {
        keep_first(reinterpret_cast<const Entry*>(a.chunks[n_chunks - 1]), longest % CHUNK, D, tail);
        a.chunks[n_chunks - 1] = reinterpret_cast<const uint8_t*>(tail);
    }
    float inverse[TILE];
    for (int64_t row = 0; row < n_rows; row++) {
        const int64_t length = a.length + token(row);
        float* scores = a.scores + row * width;
        scale_tokens<Entry>(scores, length, a.page_size, D, a.key_pages);
        hide(scores, length, a.window);
        inverse[row] = soften(scores, length);
        scale_tokens<Entry>(scores, length, a.page_size, D, a.value_pages);
        int64_t t = 0;
        for (; t < length; t += LANES) store_bf16(weights + row * width + t, load(scores + t));
        for (; t < n_chunks * CHUNK; t += LANES) store_bf16(weights + row * width + t, set1(0.0f));
    }
    alignas(64) float mixed[TILE * 4 * LANES];
    for (int64_t d = 0; d < D;) {
        const int64_t n = D - d >= 4 * LANES ? 4 * LANES : LANES;
        (n > LANES ? mix_tiles<4, Entry> : mix_tiles<1, Entry>)(weights, width, a.chunks, n_chunks, D, d, mixed, room);
        for (int64_t row = 0; row < n_rows; row++) {
            float* to = a.out + token(row) * a.out_stride + column(row) + d;
            for (int64_t i = 0; i < n; i += LANES) store(to + i, mul(load(mixed + row * n + i), set1(inverse[row])));
        }
        d += n;
    }
}

void attend_tiles(const Attention& a) {
    if (!in_tiles(a)) return attend(a);
    const int64_t n_heads = least(a.group, TILE), n_tokens = TILE / n_heads;
    for (int64_t head = 0; head < a.group; head += n_heads)
        for (int64_t first = 0; first < a.n_rows; first += n_tokens)
            (a.eight_bits ? attend_tile<int8_t> : attend_tile<uint16_t>)(a, first, least(n_tokens, a.n_rows - first),
                                                                         head, least(n_heads, a.group - head));
    _tile_release();
}

}  // namespace
