// Products of matrices that are quantized for them, in 8 bits; a part of training.inl.

namespace {

inline F16 load_some(const Factor& x, int64_t at, int64_t n) {
    if (!x.is_bf16) return load_part(static_cast<const float*>(x.numbers) + at, n, 0.0f);
    const uint16_t* p = static_cast<const uint16_t*>(x.numbers) + at;
    if (n >= LANES) return load_bf16(p);
    uint16_t lanes[LANES] = {};
    std::memcpy(lanes, p, n * sizeof(uint16_t));
    return load_bf16(lanes);
}

// Columns [begin, end) of the rows of a tile: of a row, or of a column, sixteen numbers.
struct Window {
    int64_t row, n_rows, begin, end;
};

// The largest size in each row, NaN where one of them is not finite.
inline void peaks(const Factor& x, const Window& w, float* to) {
    if (x.turned) {
        F16 peak = set1(0.0f), zeros = set1(0.0f);
        for (int64_t k = w.begin; k < w.end; k++) {
            const F16 v = load_some(x, k * x.stride + w.row, w.n_rows);
            peak = max(peak, abs(v));
            zeros = fma(v, set1(0.0f), zeros);
        }
        store(to, add(peak, zeros));
        return;
    }
    for (int64_t r = 0; r < Operand::ROWS; r++) {
        F16 peak = set1(0.0f), zeros = set1(0.0f);
        for (int64_t k = w.begin; r < w.n_rows && k < w.end; k += LANES) {
            const F16 v = load_some(x, (w.row + r) * x.stride + k, w.end - k);
            peak = max(peak, abs(v));
            zeros = fma(v, set1(0.0f), zeros);
        }
        to[r] = largest_of(peak) + sum(zeros);
    }
}

// Sixteen rows of sixteen quads, or the other way round.
inline void turn_quads(const int8_t* from, int8_t* to) {
    for (int64_t i = 0; i < 16; i++)
        for (int64_t j = 0; j < 16; j++) std::memcpy(to + (j * 16 + i) * QUAD, from + (i * 16 + j) * QUAD, QUAD);
}

// One step of a tile: codes of columns [w.begin, w.end), at most STEP of them, in the layout of the operand.
inline void encode_step(const Factor& x, const Window& w, const float* inverse, bool is_right, int8_t* codes) {
    alignas(64) int8_t room[Operand::BYTES];
    int8_t* to = x.turned == is_right ? codes : room;
    for (int64_t k = 0; x.turned && k < Operand::STEP; k += QUAD) {
        F16 quad[QUAD];
        for (int64_t j = 0; j < QUAD; j++) {
            const int64_t column = w.begin + k + j;
            quad[j] = set1(0.0f);
            if (column < w.end) quad[j] = round(mul(load_some(x, column * x.stride + w.row, w.n_rows), load(inverse)));
        }
        store_quads(to + k * Operand::ROWS, quad[0], quad[1], quad[2], quad[3]);
    }
    for (int64_t r = 0; !x.turned && r < Operand::ROWS; r++)
        for (int64_t k = 0; k < Operand::STEP; k += LANES) {
            F16 v = set1(0.0f);
            if (r < w.n_rows && w.begin + k < w.end)
                v = round(
                    mul(load_some(x, (w.row + r) * x.stride + w.begin + k, w.end - w.begin - k), set1(inverse[r])));
            store_int8(to + r * Operand::STEP + k, v);
        }
    if (to == room) turn_quads(room, codes);
}

inline Window window_of(const Factor& x, int64_t tile, int64_t begin, int64_t end) {
    const int64_t row = least(tile * Operand::ROWS, x.n_rows);
    return {row, least(Operand::ROWS, x.n_rows - row), begin, least(end, x.n_columns)};
}

// Rows that share a scale take the largest of theirs.
inline void share(float* scales, int64_t n) {
    float most = 0.0f;
    for (int64_t i = 0; i < n; i++) most = scales[i] > most || scales[i] != scales[i] ? scales[i] : most;
    for (int64_t i = 0; i < n; i++) scales[i] = most;
}

inline void sum_up(const Operand& left, int64_t tile, int64_t s) {
    for (int64_t row = 0; row < Operand::ROWS; row++) {
        int32_t sum = 0;
        for (int64_t step = s * left.span; step < least((s + 1) * left.span, left.n_steps); step++) {
            const int8_t* codes = left.codes(tile, step) + row * Operand::STEP;
            for (int64_t k = 0; k < Operand::STEP; k++) sum += codes[k];
        }
        left.surplus(tile, s)[row] = 128 * sum;
    }
}

inline void encode_span(const Factor& x, const Operand& to, int64_t first, int64_t last, int64_t s) {
    constexpr int64_t ROOM = Operand::BLOCK_TILES * Operand::ROWS;
    float scales[ROOM], inverse[ROOM];
    const int64_t begin = s * to.span * Operand::STEP, n = (last - first) * Operand::ROWS;
    for (int64_t tile = first; tile < last; tile++)
        peaks(x, window_of(x, tile, begin, begin + to.span * Operand::STEP), scales + (tile - first) * Operand::ROWS);
    if (to.shared_by_rows) share(scales, n);
    for (int64_t i = 0; i < n; i++) {
        inverse[i] = scales[i] > TINY ? 127.0f / scales[i] : 0.0f;
        scales[i] = scales[i] > TINY || scales[i] != scales[i] ? scales[i] / 127.0f : 0.0f;
    }
    for (int64_t tile = first; tile < last; tile++) {
        const int64_t at = (tile - first) * Operand::ROWS;
        std::memcpy(to.scales(tile, s), scales + at, Operand::ROWS * sizeof(float));
        for (int64_t step = s * to.span; step < least((s + 1) * to.span, to.n_steps); step++)
            encode_step(x, window_of(x, tile, step * Operand::STEP, (step + 1) * Operand::STEP), inverse + at,
                        to.is_right, to.codes(tile, step));
        if (SHIFTED && !to.is_right) sum_up(to, tile, s);
    }
}

// Of a turned factor tiles side by side are taken together: what they read lies in the same lines and pages.
void encode_factor(const Factor& x, const Operand& to, int64_t first, int64_t last) {
    const int64_t together = to.shared_by_rows || x.turned ? Operand::BLOCK_TILES : 1;
    for (; first < last; first += together)
        for (int64_t s = 0; s < to.n_spans; s++) encode_span(x, to, first, least(first + together, last), s);
}

inline void put_row(const Output& out, int64_t row, int64_t column, int64_t n, F16 v) {
    const int64_t at = row * out.stride + column;
    if (!out.is_bf16) return store_part(static_cast<float*>(out.numbers) + at, n, v);
    uint16_t* to = static_cast<uint16_t*>(out.numbers) + at;
    if (n >= LANES) return store_bf16(to, v);
    uint16_t lanes[LANES];
    store_bf16(lanes, v);
    std::memcpy(to, lanes, n * sizeof(uint16_t));
}

// R rows of sixteen numbers from one place on; those beyond the matrix are left out.
template <int R>
inline void put_rows(const Output& out, int64_t n_rows, int64_t n_columns, int64_t row, int64_t column,
                     const F16* rows) {
    if (!out.is_bf16 && row + R <= n_rows && column + LANES <= n_columns) {
        float* to = static_cast<float*>(out.numbers) + row * out.stride + column;
        for (int r = 0; r < R; r++) store(to + r * out.stride, rows[r]);
        return;
    }
    for (int r = 0; r < R && row + r < n_rows; r++) put_row(out, row + r, column, n_columns - column, rows[r]);
}

// R rows of a left tile times a right tile.
template <int R>
inline void rows_times_tile(const Operand& left, const Operand& right, int64_t a, int64_t row, int64_t b,
                            const Output& out) {
    F16 totals[R];
    for (int r = 0; r < R; r++) totals[r] = set1(0.0f);
    for (int64_t s = 0; s < right.n_spans; s++) {
        I16 dots[R];
        const int32_t* surplus = left.surplus(a, s) + row;
        for (int r = 0; r < R; r++) dots[r] = iset1(SHIFTED ? -surplus[r] : 0);
        for (int64_t step = s * right.span; step < least((s + 1) * right.span, right.n_steps); step++) {
            const int8_t* rows = left.codes(a, step) + row * Operand::STEP;
            const uint8_t* quads = reinterpret_cast<const uint8_t*>(right.codes(b, step));
            for (int64_t j = 0; j < Operand::STEP / QUAD; j++) {
                const Bytes quad = load_codes(quads + j * LINE);
                for (int r = 0; r < R; r++) dots[r] = dot4(dots[r], quad, rows + r * Operand::STEP + j * QUAD);
            }
        }
        const F16 scale = load(right.scales(b, s));
        for (int r = 0; r < R; r++)
            totals[r] = fma(to_float(dots[r]), mul(scale, set1(left.scales(a, s)[row + r])), totals[r]);
    }
    put_rows<R>(out, left.n_rows, right.n_rows, a * Operand::ROWS + row, b * Operand::ROWS, totals);
}

// So many right tiles stay in a core's second cache while all left ones pass by; each of those then writes whole lines
// of few rows. An even number, one pair at least.
inline int64_t tiles_near(const Operand& right) {
    constexpr int64_t NEAR = 1 << 19, PAIR = 2;
    const int64_t pairs = NEAR / (PAIR * right.n_steps * Operand::BYTES);
    return PAIR * (pairs > 1 ? pairs : 1);
}

void multiply(const Operand& left, const Operand& right, int64_t first, int64_t last, const Output& out) {
    constexpr int64_t R = ROWS_IN_8_BITS;
    const int64_t n_near = tiles_near(right), end = least(last, (right.n_rows + Operand::ROWS - 1) / Operand::ROWS);
    for (; first < end; first += n_near)
        for (int64_t a = 0; a < left.n_tiles; a++)
            for (int64_t b = first; b < least(first + n_near, end); b++)
                for (int64_t row = 0; row < Operand::ROWS; row += R) rows_times_tile<R>(left, right, a, row, b, out);
}

}  // namespace
