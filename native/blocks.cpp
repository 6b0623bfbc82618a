#include "blocks.h"

#include <cstring>

#include "half.h"

namespace smallpress {
namespace {

uint16_t half_at(const uint8_t* p) {
    uint16_t half;
    std::memcpy(&half, p, 2);
    return half;
}

bool finite(uint16_t half) { return (half & 0x7c00) != 0x7c00; }

void decode_f32(const uint8_t* row, int64_t n, float* out) { std::memcpy(out, row, n * sizeof(float)); }

void decode_f16(const uint8_t* row, int64_t n, float* out) {
    for (int64_t i = 0; i < n; i++) out[i] = half_to_float(half_at(row + 2 * i));
}

void decode_bf16(const uint8_t* row, int64_t n, float* out) {
    for (int64_t i = 0; i < n; i++) out[i] = float_of(static_cast<uint32_t>(half_at(row + 2 * i)) << 16);
}

// f16 scale, 32 signed bytes.
void decode_q8_0(const uint8_t* row, int64_t n, float* out) {
    for (int64_t i = 0; i < n; i += 32, row += 34) {
        const float scale = half_to_float(half_at(row));
        for (int64_t k = 0; k < 32; k++) out[i + k] = scale * static_cast<int8_t>(row[2 + k]);
    }
}

// Two halves of 128 columns, each of 64 bytes of low nibbles and 32 of upper bit pairs; 16 signed sub-scales, f16
// scale.
void decode_q6_k(const uint8_t* row, int64_t n, float* out) {
    for (int64_t i = 0; i < n; i += 256, row += 210) {
        const float scale = half_to_float(half_at(row + 208));
        for (int64_t k = 0; k < 256; k++) {
            const int64_t half = k / 128, quarter = k % 128 / 32, at = k % 32;
            const int low = row[half * 64 + quarter % 2 * 32 + at] >> (quarter / 2 * 4) & 15;
            const int upper = row[128 + half * 32 + at] >> (2 * quarter) & 3;
            out[i + k] = scale * static_cast<int8_t>(row[192 + k / 16]) * static_cast<float>((low | upper << 4) - 32);
        }
    }
}

// Half a block of a row: 16 bytes of nibbles that pair a column with the sixteenth after it, as panels do.
void put_half(const uint8_t* nibbles, const Panels& to, int64_t panel, int64_t half, int64_t row) {
    uint8_t* out = to.codes(panel) + half * PANEL * HALF / 2 + row * QUAD;
    for (int64_t i = 0; i < HALF / 2; i += QUAD) std::memcpy(out + i * PANEL, nibbles + i, QUAD);
}

// f16 scale (with HAS_MINIMUM an f16 minimum too), 16 bytes of nibbles.
template <bool HAS_MINIMUM>
bool regroup_q4(const uint8_t* rows, int64_t row_bytes, int64_t n_rows, const Panels& to, int64_t panel) {
    bool good = true;
    for (int64_t row = 0; row < n_rows; row++) {
        const uint8_t* block = rows + row * row_bytes;
        for (int64_t half = 0; half < to.K / HALF; half++) {
            const uint16_t scale = half_at(block), minimum = HAS_MINIMUM ? half_at(block + 2) : 0;
            good &= finite(scale) && finite(minimum);
            to.scales(panel)[half * PANEL + row] = scale;
            if (HAS_MINIMUM) to.minima(panel)[half * PANEL + row] = minimum;
            put_half(block + (HAS_MINIMUM ? 4 : 2), to, panel, half, row);
            block += HAS_MINIMUM ? 20 : 18;
        }
    }
    return good;
}

// f16 d and dmin, 12 bytes of eight 6-bit (scale, minimum) pairs, 128 bytes of nibbles; 32 of these serve 64 columns,
// low nibbles the first half and high ones the second. d * scale and dmin * minimum are rounded to fp16.
bool regroup_q4_k(const uint8_t* rows, int64_t row_bytes, int64_t n_rows, const Panels& to, int64_t panel) {
    bool good = true;
    for (int64_t row = 0; row < n_rows; row++) {
        const uint8_t* block = rows + row * row_bytes;
        for (int64_t half = 0; half < to.K / HALF; half++) {
            const int64_t j = half % 8;
            const uint8_t *pairs = block + 4, *codes = block + 16 + j / 2 * 32;
            const int scale = j < 4 ? pairs[j] & 63 : (pairs[j + 4] & 15) | pairs[j - 4] >> 6 << 4;
            const int minimum = j < 4 ? pairs[j + 4] & 63 : pairs[j + 4] >> 4 | pairs[j] >> 6 << 4;
            const uint16_t first = to_half(half_to_float(half_at(block)) * static_cast<float>(scale));
            const uint16_t second = to_half(-half_to_float(half_at(block + 2)) * static_cast<float>(minimum));
            good &= finite(first) && finite(second);
            to.scales(panel)[half * PANEL + row] = first;
            to.minima(panel)[half * PANEL + row] = second;
            uint8_t nibbles[HALF / 2];
            for (int64_t i = 0; i < HALF / 2; i++) {
                const int shift = j % 2 * 4;
                nibbles[i] = static_cast<uint8_t>((codes[i] >> shift & 15) | (codes[i + HALF / 2] >> shift & 15) << 4);
            }
            put_half(nibbles, to, panel, half, row);
            if (j == 7) block += 144;
        }
    }
    return good;
}

constexpr BlockFormat FORMATS[] = {
    {"F32", 1, 4, Coding::Q8, decode_f32, nullptr},
    {"F16", 1, 2, Coding::Q8, decode_f16, nullptr},
    {"BF16", 1, 2, Coding::Q8, decode_bf16, nullptr},
    {"Q8_0", 32, 34, Coding::Q8, decode_q8_0, nullptr},
    {"Q6_K", 256, 210, Coding::Q8, decode_q6_k, nullptr},
    {"Q4_0", 32, 18, Coding::Q4, nullptr, regroup_q4<false>},
    {"Q4_1", 32, 20, Coding::Q4_1, nullptr, regroup_q4<true>},
    {"Q4_K", 256, 144, Coding::Q4_1, nullptr, regroup_q4_k},
};

// n of them times the Hadamard matrix, whose inverse it is but for a factor.
void turn(float* span, int64_t n) {
    for (int64_t step = 1; step < n; step *= 2)
        for (int64_t begin = 0; begin < n; begin += 2 * step)
            for (int64_t i = begin; i < begin + step; i++) {
                const float a = span[i], b = span[i + step];
                span[i] = a + b;
                span[i + step] = a - b;
            }
}

// As hadamard.inl turns rows, which takes weights back.
void decode_eights(const Panels& panels, int64_t row, float* out) {
    const int64_t panel = row / PANEL, lane = row % PANEL, width = panels.n_blocks * BLOCK;
    const uint8_t* codes = panels.codes(panel) + lane * QUAD;
    float span[SPAN];
    for (int64_t begin = 0; begin < width; begin += SPAN, codes += PANEL * SPAN) {
        const float scale = half_to_float(panels.scales(panel)[begin / SPAN * PANEL + lane]) / 8.0f;
        const int64_t n = width - begin < SPAN ? BLOCK : SPAN;
        for (int64_t i = 0; i < n; i++)
            span[i] = scale * static_cast<float>(static_cast<int8_t>(codes[i / QUAD * PANEL * QUAD + i % QUAD]));
        turn(span, n);
        std::memcpy(out + begin, span, (panels.K - begin < n ? panels.K - begin : n) * sizeof(float));
    }
}

}  // namespace

const BlockFormat* block_format(const std::string& name) {
    for (const BlockFormat& format : FORMATS)
        if (name == format.name) return &format;
    return nullptr;
}

void decode_row(const Panels& panels, int64_t row, float* out) {
    if (panels.coding == Coding::Q8) return decode_eights(panels, row, out);
    const int64_t panel = row / PANEL, lane = row % PANEL;
    const uint8_t* codes = panels.codes(panel) + lane * QUAD;
    const uint16_t* scales = panels.scales(panel) + lane;
    const uint16_t* minima = panels.minima(panel) + lane;
    for (int64_t i = 0; i < panels.K; i++) {
        if (panels.coding == Coding::BF16) {
            out[i] = float_of(static_cast<uint32_t>(half_at(panels.codes(panel) + i / 2 * LINE + lane * 4 + i % 2 * 2))
                              << 16);
            continue;
        }
        const int64_t half = i / HALF, at = i % (HALF / 2);
        const uint8_t both = codes[half * PANEL * HALF / 2 + at / QUAD * PANEL * QUAD + at % QUAD];
        const int code = i % HALF < HALF / 2 ? both & 15 : both >> 4;
        const float scale = half_to_float(scales[half * PANEL]);
        out[i] = panels.coding == Coding::Q4 ? scale * (code - 8) : scale * code + half_to_float(minima[half * PANEL]);
    }
}

}  // namespace smallpress
