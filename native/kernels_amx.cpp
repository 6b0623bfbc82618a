// Tile registers (AMX): 16 rows of activations times a panel, a block of 64 columns in one instruction. All else is as
// in AVX-512.

#define KERNELS_NAME "amx"
#include "simd_avx512.h"
#include "kernels.inl"

namespace {

// Fewer rows leave most of the only tile empty, and the plain product is faster.
constexpr int64_t FEW = 4, FEW_IN_4_BITS = 8;

// What a tile of rows meets before the next one does: panels that stay in the second cache, and whose results lie side
// by side in the same few pages of memory.
constexpr int64_t GROUP = 16;

constexpr int64_t UNDER_WAY = 4;  // blocks: a tile is read, multiplied and written while earlier ones are summed

struct alignas(64) TileShapes {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {LINE, LINE, LINE, LINE, LINE, LINE};
    uint8_t rows[16] = {TILE, TILE, TILE, TILE, TILE, TILE};
};

// Dots are in 0 and 1, activations in 2 and 3, weights in 4 and 5. A constant, because the compiler takes the
// instruction that reads it for one that reads its first eight bytes, and leaves out what is written to the others.
static_assert(BLOCK == LINE && PANEL * QUAD == LINE && BLOCK / QUAD == TILE, "a block fills a tile");
constexpr TileShapes SHAPES;

void take_tiles() { _tile_loadconfig(&SHAPES); }

inline void multiply(bool odd, const int8_t* a, const uint8_t* codes, int32_t* dots) {
    // Tiles are named in the instructions themselves.
    if (odd) {
        _tile_loadd(3, a, LINE);
        _tile_loadd(5, codes, LINE);
        _tile_zero(1);
        _tile_dpbssd(1, 3, 5);
        _tile_stored(1, dots, LINE);
    } else {
        _tile_loadd(2, a, LINE);
        _tile_loadd(4, codes, LINE);
        _tile_zero(0);
        _tile_dpbssd(0, 2, 4);
        _tile_stored(0, dots, LINE);
    }
}

// Half a block in 4 bits as 8-bit codes in their lines of a tile, whose other lines are 0: so a block's activations
// meet one half at a time, each with its own scale.
inline void spread(const uint8_t* codes, int64_t half, uint8_t* tile) {
    constexpr int64_t LINES = HALF / 2 / QUAD;  // of the packed half
    uint8_t* lines = tile + half % 2 * 2 * LINES * LINE;
    for (int64_t j = 0; j < LINES; j++) {
        const Bytes both = load_bytes(codes + j * LINE);
        _mm512_store_si512(lines + j * LINE, low_nibbles(both));
        _mm512_store_si512(lines + (LINES + j) * LINE, high_nibbles(both));
    }
}

// A step is what has a scale of its own: a block in 8 bits, half of one in 4.
template <bool FOUR_BITS>
void tile_times_panel(const Activations& x, int64_t row, int64_t n, const Panels& w, int64_t panel, float* out,
                      int64_t stride, Store store_) {
    constexpr int64_t EACH = FOUR_BITS ? BLOCK / HALF : 1, STEP_BYTES = FOUR_BITS ? PANEL * HALF / 2 : PANEL * BLOCK;
    const int64_t n_steps = w.n_blocks * EACH;
    const uint8_t* codes = w.codes(panel);
    const uint16_t *halves = w.scales(panel), *minima = w.coding == Coding::Q4_1 ? w.minima(panel) : nullptr;
    const int8_t* a = x.codes(row);
    const float *scales = x.scales(row), *sums = x.sums(row);
    alignas(64) int32_t dots[UNDER_WAY][TILE * PANEL];
    // In 4 bits even ones hold first halves, odd ones second halves, and zeros.
    alignas(64) uint8_t tiles[FOUR_BITS ? UNDER_WAY : 1][PANEL * BLOCK];
    static_assert(UNDER_WAY % 2 == 0 && BLOCK == 2 * HALF);
    if constexpr (FOUR_BITS) std::memset(tiles, 0, sizeof tiles);
    auto begin = [&](int64_t step) __attribute__((always_inline)) {
        if (step >= n_steps) return;
        const uint8_t* here = codes + step * STEP_BYTES;
        if (row == 0)  // the panel after this one is still in memory
            for (int64_t i = 0; i < STEP_BYTES; i += LINE) __builtin_prefetch(here + w.panel_bytes + i);
        if constexpr (FOUR_BITS) {
            spread(here, step, tiles[step % UNDER_WAY]);
            here = tiles[step % UNDER_WAY];
        }
        multiply(step % 2, a + step / EACH * BLOCK * TILE, here, dots[step % UNDER_WAY]);
    };
    F16 total[TILE];
#pragma GCC unroll 16
    for (int64_t r = 0; r < TILE; r++) total[r] = set1(0.0f);
    for (int64_t step = 0; step < UNDER_WAY - 1; step++) begin(step);
    for (int64_t step = 0; step < n_steps; step++) {
        begin(step + UNDER_WAY - 1);
        const F16 scale = load_half(halves + step * PANEL);
        const int32_t* here = dots[step % UNDER_WAY];
        const float* scales_here = scales + step / EACH * TILE;
#pragma GCC unroll 16
        for (int64_t r = 0; r < TILE; r++)
            total[r] = fma(to_float(_mm512_load_si512(here + r * PANEL)), mul(scale, set1(scales_here[r])), total[r]);
        if constexpr (FOUR_BITS) {
            const F16 minimum = minima ? load_half(minima + step * PANEL) : mul(scale, set1(-8.0f));
#pragma GCC unroll 16
            for (int64_t r = 0; r < TILE; r++) total[r] = fma(minimum, set1(sums[step * TILE + r]), total[r]);
        }
    }
#pragma GCC unroll 16
    for (int64_t r = 0; r < TILE; r++)
        if (r < n) put(out + (row + r) * stride + panel * PANEL, w.N - panel * PANEL, store_, total[r]);
}

void product_amx(const Activations& x, int64_t M, const Panels& w, int64_t first, int64_t last, float* out,
                 int64_t stride, Store store_) {
    if (w.coding == Coding::BF16 || M < (w.four_bits() ? FEW_IN_4_BITS : FEW))
        return product(x, M, w, first, last, out, stride, store_);
    const auto tile_times = w.four_bits() ? tile_times_panel<true> : tile_times_panel<false>;
    take_tiles();
    for (int64_t group = first; group < last; group += GROUP)
        for (int64_t row = 0; row < M; row += TILE)
            for (int64_t panel = group; panel < least(group + GROUP, last); panel++)
                tile_times(x, row, least(TILE, M - row), w, panel, out, stride, store_);
    _tile_release();
}

}  // namespace

#include "attention_tiles.inl"
#include "latent_tiles.inl"

namespace {

int64_t exercise_tiles(int64_t n) {
    take_tiles();
    _tile_zero(4);
    _tile_zero(5);
    for (int64_t i = 0; i < n; i++) {
        _tile_dpbssd(0, 4, 5);
        _tile_dpbssd(1, 4, 5);
        _tile_dpbssd(2, 4, 5);
        _tile_dpbssd(3, 4, 5);
    }
    _tile_release();
    return n * 4 * TILE * PANEL * BLOCK;
}

}  // namespace

#include "training_amx.inl"

namespace {

constexpr Kernels with_tiles() {
    Kernels table = TABLE;
    table.product = product_amx;
    table.attend = attend_tiles;
    table.attend_latent = attend_latent_tiles;
    table.exercise = exercise_tiles;
    table.training = &TRAINING_TILED;
    return table;
}

const Kernels TILED = with_tiles();

}  // namespace

namespace smallpress {
const Kernels& kernels_amx() { return TILED; }
}  // namespace smallpress
