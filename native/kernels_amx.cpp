// Tile registers (AMX): 16 rows of activations times a panel, a block of 64 columns in one instruction. All else is as
// in AVX-512.

#define KERNELS_NAME "amx"
#include "simd_avx512.h"
#include "kernels.inl"

#include <cstdlib>

namespace {

// Fewer rows leave most of the only tile empty, and the plain product is faster.
constexpr int64_t FEW = 4, FEW_IN_4_BITS = 8;

// What a tile of rows meets before the next one does: panels that stay in the second cache, and whose results lie side
// by side in the same few pages of memory. In 4 bits panels are spread first; one alone stays in the first cache, which
// is better where few rows meet it.
constexpr int64_t GROUP = 16, SPREAD_BYTES = 1 << 19, FEW_TILES = 4;

constexpr int64_t UNDER_WAY = 4;  // steps: tiles are read, multiplied and written while earlier ones are summed

struct alignas(64) TileShapes {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {LINE, LINE, LINE, LINE, LINE, LINE, LINE, LINE};
    uint8_t rows[16] = {TILE, TILE, TILE, TILE, TILE, TILE, TILE, TILE};
};

// A constant, because the compiler takes the instruction that reads it for one that reads its first eight bytes, and
// leaves out what is written to the others.
static_assert(BLOCK == LINE && PANEL * QUAD == LINE && BLOCK / QUAD == TILE, "a block fills a tile");
constexpr TileShapes SHAPES;
constexpr int64_t TILE_BYTES = TILE * LINE;

void take_tiles() { _tile_loadconfig(&SHAPES); }

// The dots of a span of n columns. Tiles are named in the instructions themselves: dots in 0 or 1, so that one is
// written while the next is multiplied.
inline void multiply_q8(bool odd, const int8_t* a, const uint8_t* codes, int64_t n, int32_t* dots) {
    if (odd) {
        _tile_zero(0);
        for (; n > 0; n -= BLOCK, a += TILE_BYTES, codes += TILE_BYTES) {
            _tile_loadd(4, a, LINE);
            _tile_loadd(6, codes, LINE);
            _tile_dpbssd(0, 4, 6);
        }
        _tile_stored(0, dots, LINE);
    } else {
        _tile_zero(1);
        for (; n > 0; n -= BLOCK, a += TILE_BYTES, codes += TILE_BYTES) {
            _tile_loadd(5, a, LINE);
            _tile_loadd(7, codes, LINE);
            _tile_dpbssd(1, 5, 7);
        }
        _tile_stored(1, dots, LINE);
    }
}

inline void put_rows(const Activations& x, int64_t row, int64_t n, const Panels& w, int64_t panel, float* out,
                     int64_t stride, Store store_, const F16* total) {
#pragma GCC unroll 16
    for (int64_t r = 0; r < TILE; r++)
        if (r < n)
            put(out + (row + r) * stride + panel * PANEL, w.N - panel * PANEL, store_, total[r],
                row_scale(x, w, row + r));
}

// `n` rows of a tile.
void tile_times_q8(const Activations& x, int64_t row, int64_t n, const Panels& w, int64_t panel, float* out,
                   int64_t stride, Store store_) {
    const int64_t n_columns = w.n_blocks * BLOCK, n_steps = round_up(n_columns, SPAN) / SPAN;
    const uint8_t* codes = w.codes(panel);
    const uint16_t* halves = w.scales(panel);
    const int8_t* a = x.eights(row);
    const float* scales = x.spans(row);
    alignas(64) int32_t dots[UNDER_WAY][TILE * PANEL];
    auto begin = [&](int64_t step) __attribute__((always_inline)) {
        if (step >= n_steps) return;
        const int64_t first = step * SPAN, here = least(SPAN, n_columns - first);
        if (row == 0)  // the panel after this one is still in memory
            for (int64_t i = 0; i < here * PANEL; i += LINE)
                __builtin_prefetch(codes + first * PANEL + w.panel_bytes + i);
        multiply_q8(step % 2, a + first * TILE, codes + first * PANEL, here, dots[step % UNDER_WAY]);
    };
    F16 total[TILE];
#pragma GCC unroll 16
    for (int64_t r = 0; r < TILE; r++) total[r] = set1(0.0f);
    for (int64_t step = 0; step < UNDER_WAY - 1; step++) begin(step);
    for (int64_t step = 0; step < n_steps; step++) {
        begin(step + UNDER_WAY - 1);
        const F16 scale = load_half(halves + step * PANEL);
        const int32_t* here = dots[step % UNDER_WAY];
#pragma GCC unroll 16
        for (int64_t r = 0; r < TILE; r++)
            total[r] =
                fma(to_float(_mm512_load_si512(here + r * PANEL)), mul(scale, set1(scales[step * TILE + r])), total[r]);
    }
    put_rows(x, row, n, w, panel, out, stride, store_, total);
}

// A panel in 4 bits as tiles of bytes, one for half a block: 16 times its codes, which meet the high parts of the
// activations, then the codes themselves, which meet the low ones, so that one product sums both. Codes that have no
// minimum are 8 less, and signed.
template <bool SIGNED>
void spread(const Panels& w, int64_t panel, uint8_t* tiles) {
    constexpr int64_t LINES = HALF / 2 / QUAD;  // of the packed half
    const __m512i eight = _mm512_set1_epi8(8), upper = _mm512_set1_epi8(static_cast<char>(0xf0));
    const uint8_t* codes = w.codes(panel);
    for (int64_t half = 0; half < w.n_blocks * (BLOCK / HALF); half++, tiles += TILE_BYTES)
        for (int64_t j = 0; j < LINES; j++, codes += LINE) {
            __builtin_prefetch(codes + w.panel_bytes);
            Bytes both = load_bytes(codes);
            Bytes left = low_nibbles(both), right = high_nibbles(both);
            if (SIGNED) {
                both = _mm512_xor_si512(both, _mm512_set1_epi8(static_cast<char>(0x88)));
                left = _mm512_sub_epi8(left, eight);
                right = _mm512_sub_epi8(right, eight);
            }
            _mm512_store_si512(tiles + j * LINE, _mm512_and_si512(_mm512_slli_epi16(both, 4), upper));
            _mm512_store_si512(tiles + (LINES + j) * LINE, _mm512_and_si512(both, upper));
            _mm512_store_si512(tiles + (2 * LINES + j) * LINE, left);
            _mm512_store_si512(tiles + (3 * LINES + j) * LINE, right);
        }
}

template <bool SIGNED>
inline void multiply_q4(bool odd, const int8_t* a, const uint8_t* tile, int32_t* dots) {
    static_assert(Activations::LOW_BITS == 4, "a high part counts 16 times");
    if (odd) {
        _tile_loadd(4, a, LINE);
        _tile_loadd(6, tile, LINE);
        _tile_zero(0);
        if constexpr (SIGNED)
            _tile_dpbssd(0, 4, 6);
        else
            _tile_dpbsud(0, 4, 6);
        _tile_stored(0, dots, LINE);
    } else {
        _tile_loadd(5, a, LINE);
        _tile_loadd(7, tile, LINE);
        _tile_zero(1);
        if constexpr (SIGNED)
            _tile_dpbssd(1, 5, 7);
        else
            _tile_dpbsud(1, 5, 7);
        _tile_stored(1, dots, LINE);
    }
}

template <bool SIGNED>
void tile_times_q4(const Activations& x, int64_t row, int64_t n, const Panels& w, int64_t panel, const uint8_t* tiles,
                   float* out, int64_t stride, Store store_) {
    const int64_t n_steps = w.n_blocks * (BLOCK / HALF);
    const uint16_t *halves = w.scales(panel), *minima = w.minima(panel);
    const int8_t* a = x.fours(row);
    const float* sums = x.sums(row);
    alignas(64) int32_t dots[UNDER_WAY][TILE * PANEL];
    auto begin = [&](int64_t step) __attribute__((always_inline)) {
        if (step < n_steps)
            multiply_q4<SIGNED>(step % 2, a + step * TILE_BYTES, tiles + step * TILE_BYTES, dots[step % UNDER_WAY]);
    };
    F16 total[TILE];
#pragma GCC unroll 16
    for (int64_t r = 0; r < TILE; r++) total[r] = set1(0.0f);
    for (int64_t step = 0; step < UNDER_WAY - 1; step++) begin(step);
    for (int64_t step = 0; step < n_steps; step++) {
        begin(step + UNDER_WAY - 1);
        const F16 scale = load_half(halves + step * PANEL);
        const int32_t* here = dots[step % UNDER_WAY];
#pragma GCC unroll 16
        for (int64_t r = 0; r < TILE; r++)
            total[r] = fma(to_float(_mm512_load_si512(here + r * PANEL)), scale, total[r]);
        if constexpr (!SIGNED) {
            const F16 minimum = load_half(minima + step * PANEL);
#pragma GCC unroll 16
            for (int64_t r = 0; r < TILE; r++) total[r] = fma(minimum, set1(sums[step * TILE + r]), total[r]);
        }
    }
    put_rows(x, row, n, w, panel, out, stride, store_, total);
}

// A thread's memory for panels spread out, kept from product to product.
struct Room {
    uint8_t* bytes = nullptr;
    int64_t size = 0;
    ~Room() { std::free(bytes); }
    bool holds(int64_t n) {
        if (n <= size) return true;
        std::free(bytes);
        bytes = static_cast<uint8_t*>(std::aligned_alloc(LINE, n));
        size = bytes ? n : 0;
        return bytes != nullptr;
    }
};

template <bool SIGNED>
void product_q4(const Activations& x, int64_t M, const Panels& w, int64_t first, int64_t last, float* out,
                int64_t stride, Store store_) {
    thread_local Room spread_out;
    const int64_t panel_bytes = w.n_blocks * (BLOCK / HALF) * TILE_BYTES;
    const int64_t room = SPREAD_BYTES / panel_bytes, most = room < 1 ? 1 : least(GROUP, room);
    const int64_t together = M <= FEW_TILES * TILE ? 1 : most;
    if (!spread_out.holds(together * panel_bytes)) return product(x, M, w, first, last, out, stride, store_);
    uint8_t* tiles = spread_out.bytes;
    for (int64_t group = first; group < last; group += together) {
        const int64_t n_panels = least(together, last - group);
        for (int64_t i = 0; i < n_panels; i++) spread<SIGNED>(w, group + i, tiles + i * panel_bytes);
        for (int64_t row = 0; row < M; row += TILE)
            for (int64_t i = 0; i < n_panels; i++)
                tile_times_q4<SIGNED>(x, row, least(TILE, M - row), w, group + i, tiles + i * panel_bytes, out, stride,
                                      store_);
    }
}

void product_q8(const Activations& x, int64_t M, const Panels& w, int64_t first, int64_t last, float* out,
                int64_t stride, Store store_) {
    for (int64_t group = first; group < last; group += GROUP)
        for (int64_t row = 0; row < M; row += TILE)
            for (int64_t panel = group; panel < least(group + GROUP, last); panel++)
                tile_times_q8(x, row, least(TILE, M - row), w, panel, out, stride, store_);
}

constexpr int64_t WIDE = 2 * LINE;  // bytes from one row to the next of a block of bf16; half a block fills a tile

// The sums in a tile, of `n` rows from `row` on.
inline void put_sums(const float* sums, const Activations& x, int64_t row, int64_t n, const Panels& w, int64_t panel,
                     float* out, int64_t stride, Store store_) {
    F16 total[TILE];
#pragma GCC unroll 16
    for (int64_t r = 0; r < TILE; r++) total[r] = load(sums + r * PANEL);
    put_rows(x, row, n, w, panel, out, stride, store_, total);
}

// Two tiles of rows by two panels, four sums. Where there is no second one the first stands in, and is left out after.
void grid_bf16(const Activations& x, int64_t M, int64_t row, const Panels& w, int64_t panel, int64_t last, float* out,
               int64_t stride, Store store_) {
    const bool two_panels = panel + 1 < last, two_tiles = row + TILE < M;
    const uint16_t *a = x.narrow(row), *b = two_tiles ? x.narrow(row + TILE) : a;
    const uint8_t *one = w.codes(panel), *other = two_panels ? w.codes(panel + 1) : one;
    alignas(64) float sums[4][TILE * PANEL];
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t half = 0; half < 2 * w.n_blocks; half++, one += TILE_BYTES, other += TILE_BYTES) {
        if (row == 0)  // the two panels after these are still in memory
            for (int64_t i = 0; i < TILE_BYTES; i += LINE) {
                __builtin_prefetch(other + w.panel_bytes + i);
                __builtin_prefetch(other + 2 * w.panel_bytes + i);
            }
        const int64_t at = half / 2 * TILE * BLOCK + half % 2 * BLOCK / 2;
        _tile_loadd(4, a + at, WIDE);
        _tile_loadd(6, one, LINE);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, other, LINE);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, b + at, WIDE);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums[0], LINE);
    _tile_stored(1, sums[1], LINE);
    _tile_stored(2, sums[2], LINE);
    _tile_stored(3, sums[3], LINE);
    for (int64_t i = 0; i < (two_tiles ? 4 : 2); i++)
        if (two_panels || i % 2 == 0)
            put_sums(sums[i], x, row + i / 2 * TILE, least(TILE, M - row - i / 2 * TILE), w, panel + i % 2, out, stride,
                     store_);
}

// One tile of rows by four panels far apart: streams.
void streams_bf16(const Activations& x, int64_t M, const Panels& w, int64_t panel, int64_t apart, float* out,
                  int64_t stride, Store store_) {
    static_assert(STREAMS == 4, "as many sums");
    const uint16_t* a = x.narrow(0);
    const uint8_t* from = w.codes(panel);
    const int64_t bytes = apart * w.panel_bytes;
    alignas(64) float sums[4][TILE * PANEL];
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t half = 0; half < 2 * w.n_blocks; half++, from += TILE_BYTES) {
        for (int64_t i = 0; i < TILE_BYTES; i += LINE)
            for (int64_t s = 0; s < STREAMS; s++) fetch(from + s * bytes + i);
        _tile_loadd(4, a + half / 2 * TILE * BLOCK + half % 2 * BLOCK / 2, WIDE);
        _tile_loadd(6, from, LINE);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, from + bytes, LINE);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(6, from + 2 * bytes, LINE);
        _tile_dpbf16ps(2, 4, 6);
        _tile_loadd(7, from + 3 * bytes, LINE);
        _tile_dpbf16ps(3, 4, 7);
    }
    _tile_stored(0, sums[0], LINE);
    _tile_stored(1, sums[1], LINE);
    _tile_stored(2, sums[2], LINE);
    _tile_stored(3, sums[3], LINE);
    for (int64_t s = 0; s < STREAMS; s++) put_sums(sums[s], x, 0, M, w, panel + s * apart, out, stride, store_);
}

void product_bf16(const Activations& x, int64_t M, const Panels& w, int64_t first, int64_t last, float* out,
                  int64_t stride, Store store_) {
    if (M <= TILE) {
        const int64_t apart = (last - first) / STREAMS;
        for (int64_t i = 0; i < apart; i++) streams_bf16(x, M, w, first + i, apart, out, stride, store_);
        first += apart * STREAMS;
    }
    for (int64_t group = first; group < last; group += GROUP)
        for (int64_t row = 0; row < M; row += 2 * TILE)
            for (int64_t panel = group; panel < least(group + GROUP, last); panel += 2)
                grid_bf16(x, M, row, w, panel, last, out, stride, store_);
}

void product_amx(const Activations& x, int64_t M, const Panels& w, int64_t first, int64_t last, float* out,
                 int64_t stride, Store store_) {
    // In bf16 tiles add up in another order, so that one row has to take them too.
    if (w.coding != Coding::BF16 && M < (w.four_bits() ? FEW_IN_4_BITS : FEW))
        return product(x, M, w, first, last, out, stride, store_);
    const auto tiled = w.coding == Coding::BF16 ? product_bf16
                       : w.coding == Coding::Q8 ? product_q8
                       : w.coding == Coding::Q4 ? product_q4<true>
                                                : product_q4<false>;
    take_tiles();
    tiled(x, M, w, first, last, out, stride, store_);
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
    table.product = clean<product_amx>;
    table.attend = clean<attend_tiles>;
    table.in_parts = nullptr;  // tiles add up in another order
    table.attend_latent = clean<attend_latent_tiles>;
    table.exercise = clean<exercise_tiles>;
    table.training = &TRAINING_TILED;
    return table;
}

const Kernels TILED = with_tiles();

}  // namespace

namespace smallpress {
const Kernels& kernels_amx() { return TILED; }
}  // namespace smallpress
