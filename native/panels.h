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
constexpr int64_t BLOCK = 64;  // columns that a tile register holds
constexpr int64_t SPAN = 128;  // columns that share a scale in 8 bits
constexpr int64_t HALF = 32;   // columns that share a scale in 4 bits
constexpr int64_t QUAD = 4;    // columns whose products one instruction adds up
constexpr int64_t LINE = 64;   // bytes

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
    // What lies from the n-th on, for as long as this one lives and does not grow.
    Buffer from(size_t n) const {
        Buffer part;
        part.data_ = data_ + n;
        part.size_ = size_ - n;
        return part;
    }
    SMALLPRESS_INLINE T* get() const { return data_; }
    T& operator[](size_t i) const { return data_[i]; }
    size_t size() const { return size_; }

private:
    struct Free {
        void operator()(void* p) const { std::free(p); }
    };
    std::unique_ptr<void, Free> raw_;
    T* data_ = nullptr;
    size_t size_ = 0;
};

enum class Coding {
    Q8,    // scale * code, codes -127 to 127
    Q4,    // scale * (code - 8), codes 0 to 15
    Q4_1,  // scale * code + minimum, codes 0 to 15
    BF16,  // the number itself, rounded
};

// A weight [N, K]. Rows are taken 16 at a time, columns 64 at a time. Such a block's codes stand column quad by column
// quad, 16 rows x 4 columns each; in 4 bits a byte holds the code of a column in its lower half and of the sixteenth
// after it in its upper; bf16 goes in pairs of columns instead of quads. A panel holds the codes of all its blocks,
// then their scales in fp16, 16 for two blocks (in 4 bits for half a block), then as many minima where it has them.
// What fills up N and K has scale and minimum 0. In 8 bits codes are those of spans times a Hadamard matrix
// (hadamard.inl).
struct Panels {
    Coding coding = Coding::Q8;
    int64_t N = 0, K = 0, n_blocks = 0, panel_bytes = 0;
    Buffer<uint8_t> data;

    Panels() = default;
    Panels(Coding coding, int64_t N, int64_t K)
        : coding(coding),
          N(N),
          K(K),
          n_blocks((K + BLOCK - 1) / BLOCK),
          panel_bytes(round_up(code_bytes() + (coding == Coding::Q4_1 ? 2 : 1) * scale_bytes(), LINE)),
          data(n_panels() * panel_bytes) {}

    int64_t n_panels() const { return (N + PANEL - 1) / PANEL; }
    // Panels from the first-th on as a weight of n_rows rows, as long as this one lives: one of a stack.
    Panels from(int64_t first, int64_t n_rows) const {
        Panels part;
        part.coding = coding;
        part.N = n_rows;
        part.K = K;
        part.n_blocks = n_blocks;
        part.panel_bytes = panel_bytes;
        part.data = data.from(first * panel_bytes);
        return part;
    }
    SMALLPRESS_INLINE bool four_bits() const { return coding == Coding::Q4 || coding == Coding::Q4_1; }
    SMALLPRESS_INLINE uint8_t* codes(int64_t panel) const { return data.get() + panel * panel_bytes; }
    // [span, row] in 8 bits, [half, row] in 4.
    SMALLPRESS_INLINE uint16_t* scales(int64_t panel) const { return halves_at(codes(panel) + code_bytes()); }
    SMALLPRESS_INLINE uint16_t* minima(int64_t panel) const {
        return halves_at(codes(panel) + code_bytes() + scale_bytes());
    }

private:
    SMALLPRESS_INLINE static uint16_t* halves_at(uint8_t* p) { return reinterpret_cast<uint16_t*>(p); }
    // Of a panel.
    SMALLPRESS_INLINE int64_t code_bytes() const {
        const int64_t n = n_blocks * PANEL * BLOCK;
        return coding == Coding::BF16 ? n * 2 : four_bits() ? n / 2 : n;
    }
    SMALLPRESS_INLINE int64_t scale_bytes() const {
        if (coding == Coding::BF16) return 0;
        return PANEL * 2 * (four_bits() ? n_blocks * (BLOCK / HALF) : round_up(n_blocks * BLOCK, SPAN) / SPAN);
    }
};

// Which of them there are among weights: what activations have to be brought into.
struct Codings {
    bool eight_bits = false, four_bits = false, bf16 = false;
    void add(const Panels& weight) {
        (weight.coding == Coding::BF16 ? bf16 : weight.four_bits() ? four_bits : eight_bits) = true;
    }
};

// M rows of activations, 16 rows to a tile, so that what rows are multiplied by together lies together. Beside weights
// in 8 bits they are codes of 8 bits of spans turned as the weights' are (`eights`), for each row's span a scale and
// what its products have too much where the weights' codes are taken 128 higher (`surplus`). Beside weights in 4 bits a
// number is its row's scale * code; the code has 12 bits and is high * 2^4 + low, both of 8 bits, so that two products
// of bytes make one of more bits (`fours`, and the sums of half a block's codes). Beside bf16 they are bf16 (`narrow`).
struct Activations {
    static constexpr int64_t TILE = 16;
    static constexpr int LOW_BITS = 4;

    int64_t n_blocks = 0;
    Codings meets{true, true, true};          // those of the next products' weights
    Buffer<int8_t> eight_data;                // [tile, block, row, 64]
    Buffer<int32_t> surplus_data;             // [tile, span, row]
    Buffer<int8_t> four_data;                 // [tile, half, row, (high, low), 32]
    Buffer<float> eight_scales, four_scales;  // [tile, span, row]; [row]
    Buffer<float> sum_data;                   // [tile, half, row]
    Buffer<uint16_t> narrow_data;             // [tile, block, row, 64]

    SMALLPRESS_INLINE int64_t n_spans() const { return round_up(n_blocks * BLOCK, SPAN) / SPAN; }

    void reserve(int64_t M, int64_t K) {
        n_blocks = (K + BLOCK - 1) / BLOCK;
        const int64_t rows = round_up(M, TILE), n = rows * n_blocks * BLOCK;
        eight_data.reserve(n);
        surplus_data.reserve(rows * n_spans());
        four_data.reserve(2 * n);
        eight_scales.reserve(rows * n_spans());
        four_scales.reserve(rows);
        sum_data.reserve(n / HALF);
        narrow_data.reserve(n);
    }

    // Rows from `row` on, the first of a tile, as long as these live and do not grow.
    Activations from(int64_t row) const {
        const int64_t at = row * n_blocks * BLOCK;
        Activations part;
        part.n_blocks = n_blocks;
        part.meets = meets;
        part.eight_data = eight_data.from(at);
        part.surplus_data = surplus_data.from(row * n_spans());
        part.four_data = four_data.from(2 * at);
        part.eight_scales = eight_scales.from(row * n_spans());
        part.four_scales = four_scales.from(row);
        part.sum_data = sum_data.from(at / HALF);
        part.narrow_data = narrow_data.from(at);
        return part;
    }

    // Of a row's first block (its first half, in fours and sums; its first span, in spans and surplus). low is HALF
    // further on than high in fours.
    SMALLPRESS_INLINE int8_t* eights(int64_t row) const {
        return eight_data.get() + first(row, 1) + row % TILE * BLOCK;
    }
    SMALLPRESS_INLINE float* spans(int64_t row) const { return eight_scales.get() + first_span(row); }
    SMALLPRESS_INLINE int32_t* surplus(int64_t row) const { return surplus_data.get() + first_span(row); }
    SMALLPRESS_INLINE int8_t* fours(int64_t row) const { return four_data.get() + first(row, 2) + row % TILE * BLOCK; }
    SMALLPRESS_INLINE uint16_t* narrow(int64_t row) const {
        return narrow_data.get() + first(row, 1) + row % TILE * BLOCK;
    }
    SMALLPRESS_INLINE float* sums(int64_t row) const { return sum_data.get() + first(row, 1) / HALF + row % TILE; }

private:
    SMALLPRESS_INLINE int64_t first(int64_t row, int64_t each) const {
        return row / TILE * TILE * n_blocks * BLOCK * each;
    }
    SMALLPRESS_INLINE int64_t first_span(int64_t row) const { return row / TILE * TILE * n_spans() + row % TILE; }
};

}  // namespace smallpress
