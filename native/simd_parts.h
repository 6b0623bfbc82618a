// Dots of sixteen rows of codes of 4 bits with activations whose codes are in two parts; included at the end of a
// simd_*.h that has no better way.

#pragma once

namespace {

struct FourDots {
    I16 high = iset1(0), low = iset1(0);
};

// Two quads, whose codes are at most 15: the second quad's part lies 16 bytes after the first's, low parts 32 after.
inline void add_quads(FourDots& dots, Bytes first, Bytes second, const int8_t* a) {
    dots.high = dot4(dot4(dots.high, first, a), second, a + 16);
    dots.low = dot4(dot4(dots.low, first, a + 32), second, a + 48);
}

inline I16 total_of_fours(const FourDots& dots) { return iadd(shift_left<4>(dots.high), dots.low); }

}  // namespace
