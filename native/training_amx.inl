// The products of training in tile registers; a part of kernels_amx.cpp.

namespace {

constexpr int64_t PAIR = 2;  // tiles of each factor at a time: four registers of dots, two of each factor
static_assert(Operand::ROWS == TILE && Operand::STEP == LINE, "a step of a tile fills a register");

// Dots are in 0 to 3, left tiles in 4 and 5, right ones in 6 and 7.
struct alignas(64) PairShapes {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {LINE, LINE, LINE, LINE, LINE, LINE, LINE, LINE};
    uint8_t rows[16] = {TILE, TILE, TILE, TILE, TILE, TILE, TILE, TILE};
};
constexpr PairShapes PAIR_SHAPES;

constexpr int64_t DOTS = TILE * LANES;  // of a register

// The dots of one span of a pair of left tiles with a pair of right ones.
inline void pair_dots(const Operand& left, const Operand& right, int64_t a, int64_t b, int64_t s, int32_t* dots) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const int64_t end = least((s + 1) * right.span, right.n_steps);
    for (int64_t step = s * right.span; step < end; step++) {
        _tile_loadd(4, left.codes(a, step), LINE);
        _tile_loadd(6, right.codes(b, step), LINE);
        _tile_dpbssd(0, 4, 6);
        _tile_loadd(7, right.codes(b + 1, step), LINE);
        _tile_dpbssd(1, 4, 7);
        _tile_loadd(5, left.codes(a + 1, step), LINE);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
    _tile_stored(0, dots, LINE);
    _tile_stored(1, dots + DOTS, LINE);
    _tile_stored(2, dots + 2 * DOTS, LINE);
    _tile_stored(3, dots + 3 * DOTS, LINE);
}

// totals [pair, pair, row] += dots * scales
inline void add_dots(const Operand& left, const Operand& right, int64_t a, int64_t b, int64_t s, const int32_t* dots,
                     float* totals) {
    for (int64_t i = 0; i < PAIR; i++) {
        const float* rows = left.scales(a + i, s);
        for (int64_t j = 0; j < PAIR; j++) {
            const F16 scale = load(right.scales(b + j, s));
            const int64_t at = (i * PAIR + j) * DOTS;
#pragma GCC unroll 16
            for (int64_t r = 0; r < TILE; r++) {
                float* total = totals + at + r * LANES;
                const F16 dot = to_float(_mm512_load_si512(dots + at + r * LANES));
                store(total, fma(dot, mul(scale, set1(rows[r])), load(total)));
            }
        }
    }
}

inline void pair_times_pair(const Operand& left, const Operand& right, int64_t a, int64_t b, const Output& out) {
    alignas(64) int32_t dots[2][PAIR * PAIR * DOTS];
    alignas(64) float totals[PAIR * PAIR * DOTS] = {};
    pair_dots(left, right, a, b, 0, dots[0]);
    for (int64_t s = 0; s < right.n_spans; s++) {  // the next span is multiplied while this one is added up
        if (s + 1 < right.n_spans) pair_dots(left, right, a, b, s + 1, dots[(s + 1) % 2]);
        add_dots(left, right, a, b, s, dots[s % 2], totals);
    }
    for (int64_t i = 0; i < PAIR; i++)
        for (int64_t r = 0; r < TILE; r++)
            for (int64_t j = 0; j < PAIR; j++) {
                const int64_t row = (a + i) * TILE + r, column = (b + j) * LANES;
                if (row < left.n_rows && column < right.n_rows)
                    put_row(out, row, column, right.n_rows - column, load(totals + (i * PAIR + j) * DOTS + r * LANES));
            }
}

void multiply_amx(const Operand& left, const Operand& right, int64_t first, int64_t last, const Output& out) {
    _tile_loadconfig(&PAIR_SHAPES);
    const int64_t n_near = tiles_near(right);
    for (; first < last; first += n_near)
        for (int64_t a = 0; a < left.n_tiles; a += PAIR)
            for (int64_t b = first; b < least(first + n_near, last); b += PAIR) pair_times_pair(left, right, a, b, out);
    _tile_release();
}

constexpr Training TRAINING_TILED{clean<adamw>,        clean<encode_factor>, clean<multiply_amx>,
                                  clean<tree_columns>, clean<tree_forward>,  clean<tree_backward>};

}  // namespace
