// Tile registers (AMX): 16 rows of activations times a panel, 32 columns in one instruction. All else is as in AVX-512.

#define KERNELS_NAME "amx"
#include "simd_avx512.h"
#include "kernels.inl"

namespace {

// Fewer rows leave a part of the only tile empty, and the plain product is faster: by 6 % at 8 and 12 rows.
constexpr int64_t FEW = TILE;

struct alignas(64) TileShapes {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};

// Two of each, so that one is multiplied while the other is read: dots 0 and 1, activations 2 and 3, weights 4 and 5.
void take_tiles() {
    TileShapes shapes;
    for (int t = 0; t < 6; t++) {
        shapes.row_bytes[t] = t / 2 == 1 ? BLOCK : PANEL * QUAD;
        shapes.rows[t] = t / 2 == 2 ? BLOCK / QUAD : TILE;
    }
    _tile_loadconfig(&shapes);
}

inline void multiply(bool second, const int8_t* a, const uint8_t* codes, int32_t* dots) {
    // Tiles are named in the instructions themselves.
    if (second) {
        _tile_loadd(3, a, BLOCK);
        _tile_loadd(5, codes, PANEL * QUAD);
        _tile_zero(1);
        _tile_dpbsud(1, 3, 5);
        _tile_stored(1, dots, PANEL * 4);
    } else {
        _tile_loadd(2, a, BLOCK);
        _tile_loadd(4, codes, PANEL * QUAD);
        _tile_zero(0);
        _tile_dpbsud(0, 2, 4);
        _tile_stored(0, dots, PANEL * 4);
    }
}

void tile_q8(const Activations& x, int64_t row, int64_t n, const PanelsQ8& w, int64_t panel, float* out, int64_t stride,
             Store store_) {
    const uint8_t* codes = w.codes(panel);
    const uint16_t* halves = w.scales(panel);
    const int8_t* a = x.codes(row);
    const float* scales = x.scales(row);
    const int32_t* offsets = x.offsets(row);
    alignas(64) int32_t dots[2][TILE * PANEL];
    F16 total[TILE];
#pragma GCC unroll 16
    for (int64_t r = 0; r < TILE; r++) total[r] = set1(0.0f);
    multiply(false, a, codes, dots[0]);
    for (int64_t b = 0; b < w.n_blocks; b++) {
        if (b + 1 < w.n_blocks)
            multiply((b + 1) % 2, a + (b + 1) * BLOCK * TILE, codes + (b + 1) * PANEL * BLOCK, dots[(b + 1) % 2]);
        const F16 scale = load_half(halves + b * PANEL);
        const int32_t* here = dots[b % 2];
#pragma GCC unroll 16
        for (int64_t r = 0; r < TILE; r++) {
            const I16 dot = _mm512_add_epi32(_mm512_load_si512(here + r * PANEL), iset1(offsets[b * TILE + r]));
            total[r] = fma(to_float(dot), mul(scale, set1(scales[b * TILE + r])), total[r]);
        }
    }
#pragma GCC unroll 16
    for (int64_t r = 0; r < TILE; r++)
        if (r < n) put(out + (row + r) * stride + panel * PANEL, w.N - panel * PANEL, store_, total[r]);
}

void product_amx(const Activations& x, int64_t M, const PanelsQ8& w, int64_t first, int64_t last, float* out,
                 int64_t stride, Store store_) {
    if (M < FEW) return product_q8(x, M, w, first, last, out, stride, store_);
    take_tiles();
    for (int64_t panel = first; panel < last; panel++)
        for (int64_t row = 0; row < M; row += TILE)
            tile_q8(x, row, least(TILE, M - row), w, panel, out, stride, store_);
    _tile_release();
}

constexpr Kernels with_tiles() {
    Kernels table = TABLE;
    table.product_q8 = product_amx;
    return table;
}

const Kernels TILED = with_tiles();

}  // namespace

namespace smallpress {
const Kernels& kernels_amx() { return TILED; }
}  // namespace smallpress
