// Dots of sixteen rows of codes with activations whose codes are in two parts; included at the end of a simd_*.h.

#pragma once

namespace {

struct Dots {
    I16 high = iset1(0), low = iset1(0);
};

// Beside codes in 8 bits and in 4. A set of instructions with a better way has types of its own.
using EightDots = Dots;
using FourDots = Dots;

// A quad of columns; `low` bytes after its high part a lies the low one.
inline void add_quad(EightDots& dots, Bytes w, const int8_t* a, int64_t low) {
    dots.high = dot4(dots.high, w, a);
    dots.low = dot4(dots.low, w, a + low);
}

// Two quads, whose codes are at most 15: the second quad's part lies 16 bytes after the first's, low parts 32 after.
inline void add_quads(FourDots& dots, Bytes first, Bytes second, const int8_t* a) {
    dots.high = dot4_small(dot4_small(dots.high, first, a), second, a + 16);
    dots.low = dot4_small(dot4_small(dots.low, first, a + 32), second, a + 48);
}

// `extra` is what shifted codes count too much.
inline I16 total_of_eights(const EightDots& dots, I16 extra) {
    return iadd(shift_left<8>(isub(dots.high, extra)), isub(dots.low, extra));
}

inline I16 total_of_fours(const FourDots& dots) { return iadd(shift_left<4>(dots.high), dots.low); }

}  // namespace
