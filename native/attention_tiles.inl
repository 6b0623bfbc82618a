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
template <int C>
inline void mix_tiles(const uint16_t* weights, int64_t width, const uint16_t* const* chunks, int64_t n_chunks,
                      int64_t head_dim, int64_t d, float* out) {
    static_assert(C == 1 || C == 4);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t i = 0; i < n_chunks; i++) {
        const uint16_t* values = chunks[i] + 2 * d;
        _tile_loadd(6, weights + i * CHUNK, width * 2);
        _tile_loadd(7, values, head_dim * 4);
        _tile_dpbf16ps(0, 6, 7);
        if constexpr (C == 4) {
            _tile_loadd(7, values + 2 * LANES, head_dim * 4);
            _tile_dpbf16ps(1, 6, 7);
            _tile_loadd(7, values + 4 * LANES, head_dim * 4);
            _tile_dpbf16ps(2, 6, 7);
            _tile_loadd(7, values + 6 * LANES, head_dim * 4);
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
inline void keep_first(const uint16_t* chunk, int64_t n, int64_t head_dim, uint16_t* to) {
    const int64_t whole = n / 2 * head_dim * 2;
    std::memcpy(to, chunk, whole * sizeof(uint16_t));
    std::memset(to + whole, 0, (CHUNK * head_dim - whole) * sizeof(uint16_t));
    if (n % 2)
        for (int64_t d = 0; d < head_dim * 2; d += 2) to[whole + d] = chunk[whole + d];
}

// `n_tokens` queries from `first` on under `n_heads` heads from `head` on; together at most 16.
void attend_tile(const Attention& a, int64_t first, int64_t n_tokens, int64_t head, int64_t n_heads) {
    const int64_t D = a.head_dim, n_rows = n_tokens * n_heads, longest = a.length + first + n_tokens - 1;
    const int64_t width = score_width(longest), n_chunks = (longest + CHUNK - 1) / CHUNK;
    const int64_t chunks_each = a.page_size / CHUNK;
    uint16_t *q = a.narrow, *weights = q + TILE * D, *tail = weights + TILE * width;
    auto token = [&](int64_t row) { return first + row / n_heads; };
    auto column = [&](int64_t row) { return (head + row % n_heads) * D; };
    const F16 scale = set1(1.0f / sqrtf(static_cast<float>(D)));
    for (int64_t row = 0; row < n_rows; row++) {
        const float* from = a.q + token(row) * a.stride + column(row);
        for (int64_t d = 0; d < D; d += LANES) store_bf16(q + row * D + d, mul(load(from + d), scale));
    }
    take_attention_tiles(n_rows);
    for (int64_t i = 0; i < n_chunks; i++) {
        const int64_t page = i / chunks_each, within = i % chunks_each * CHUNK * D;
        score_tile(q, a.key_pages[page] + within, D, a.scores + i * CHUNK, width);
        a.chunks[i] = a.value_pages[page] + within;
    }
    if (longest % CHUNK) {
        keep_first(a.chunks[n_chunks - 1], longest % CHUNK, D, tail);
        a.chunks[n_chunks - 1] = tail;
    }
    float inverse[TILE];
    for (int64_t row = 0; row < n_rows; row++) {
        const int64_t length = a.length + token(row);
        hide(a.scores + row * width, length, a.window);
        inverse[row] = soften(a.scores + row * width, length);
        int64_t t = 0;
        for (; t < length; t += LANES) store_bf16(weights + row * width + t, load(a.scores + row * width + t));
        for (; t < n_chunks * CHUNK; t += LANES) store_bf16(weights + row * width + t, set1(0.0f));
    }
    alignas(64) float mixed[TILE * 4 * LANES];
    for (int64_t d = 0; d < D;) {
        const int64_t n = D - d >= 4 * LANES ? 4 * LANES : LANES;
        (n > LANES ? mix_tiles<4> : mix_tiles<1>)(weights, width, a.chunks, n_chunks, D, d, mixed);
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
            attend_tile(a, first, least(n_tokens, a.n_rows - first), head, least(n_heads, a.group - head));
    _tile_release();
}

}  // namespace
