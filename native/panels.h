// How weights and activations lie in memory for the integer products; docs/formats.md says the same in words.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace smallpress {

// Code in this file is used by kernels that are compiled for newer processors than the rest. Inlined everywhere, no
// copy of it can end up in the other's place.
#define SMALLPRESS_INLINE inline __attribute__((always_inline))

constexpr int64_t PANEL = 16;  // rows of a weight that are multiplied together, one in each lane
constexpr int64_t BLOCK = 32;  // columns that share a scale
constexpr int64_t QUAD = 4;    // columns whose products one instruction adds up

SMALLPRESS_INLINE constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Memory on cache-line bounds, zeroed, with a line to spare at its end; the system gives a large one its pages when
// they are first written to.
template <typename T>
class Buffer {
public:
    Buffer() = default;
    explicit Buffer(size_t n) : raw_(std::calloc(n * sizeof(T) + 2 * LINE, 1)), size_(n) {
        if (!raw_) throw std::bad_alloc();
        data_ = reinterpret_cast<T*>(round_up(reinterpret_cast<intptr_t>(raw_.get()), LINE));
    }
    // Room for n, old content lost where it must grow.
    void reserve(size_t n) {
        if (n > size_) *this = Buffer(n);
    }
    SMALLPRESS_INLINE T* get() const { return data_; }
    T& operator[](size_t i) const { return data_[i]; }
    size_t size() const { return size_; }

private:
    static constexpr int64_t LINE = 64;
    struct Free {
        void operator()(void* p) const { std::free(p); }
    };
    std::unique_ptr<void, Free> raw_;
    T* data_ = nullptr;
    size_t size_ = 0;
};

// A weight [N, K] in 8 bits. Rows are taken 16 at a time, columns 32 at a time; such a block is 512 codes, column quad
// by column quad, 16 rows x 4 columns each, and 16 scales in fp16. A weight is scale * (code - 128). A panel holds the
// codes of all its blocks, then all their scales; N and K are filled up with code 128.
struct PanelsQ8 {
    int64_t N = 0, K = 0, n_blocks = 0, panel_bytes = 0;
    Buffer<uint8_t> data;

    PanelsQ8() = default;
    PanelsQ8(int64_t N, int64_t K)
        : N(N),
          K(K),
          n_blocks((K + BLOCK - 1) / BLOCK),
          panel_bytes(round_up(n_blocks * (PANEL * BLOCK + PANEL * 2), 64)),
          data(n_panels() * panel_bytes) {}

    int64_t n_panels() const { return (N + PANEL - 1) / PANEL; }
    SMALLPRESS_INLINE uint8_t* codes(int64_t panel) const { return data.get() + panel * panel_bytes; }
    SMALLPRESS_INLINE uint16_t* scales(int64_t panel) const {
        return reinterpret_cast<uint16_t*>(codes(panel) + n_blocks * PANEL * BLOCK);
    }
};

// M rows of activations in 8 bits, 16 rows to a tile, so that what rows are multiplied by together lies together:
// codes [tile, block, row, 32], scales and offsets [tile, block, row]. A number is scale * code; an offset is -128
// times the sum of a block's codes, which takes the 128 out of the weights' codes.
struct Activations {
    static constexpr int64_t TILE = 16;

    int64_t n_blocks = 0;
    Buffer<int8_t> code_data;
    Buffer<float> scale_data;
    Buffer<int32_t> offset_data;

    void reserve(int64_t M, int64_t K) {
        n_blocks = (K + BLOCK - 1) / BLOCK;
        const int64_t n = round_up(M, TILE) * n_blocks;
        code_data.reserve(n * BLOCK);
        scale_data.reserve(n);
        offset_data.reserve(n);
    }

    // Of a row's first block; others are TILE * 32 codes, TILE scales and TILE offsets apart.
    SMALLPRESS_INLINE int8_t* codes(int64_t row) const { return code_data.get() + first(row) * BLOCK; }
    SMALLPRESS_INLINE float* scales(int64_t row) const { return scale_data.get() + first(row); }
    SMALLPRESS_INLINE int32_t* offsets(int64_t row) const { return offset_data.get() + first(row); }

private:
    SMALLPRESS_INLINE int64_t first(int64_t row) const { return row / TILE * TILE * n_blocks + row % TILE; }
};

}  // namespace smallpress
