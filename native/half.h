// The bits of an fp32 number, and fp16 as 16 bits.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

// Each file has its own copy: see kernels.inl on why none is shared.
namespace {

inline float float_of(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

inline uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}

inline float half_to_float(uint16_t h) {
    const uint32_t sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    // Zero or a subnormal number is fraction * 2^-24.
    if (exponent == 0) return float_of(sign | bits_of(static_cast<float>(fraction) * 0x1p-24f));
    return float_of(sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13);
}

// fp32 to fp16, rounded to nearest even; numbers beyond its range become infinite, below it 0.
inline uint16_t to_half(float x) {
    uint32_t bits = bits_of(x);
    const uint16_t sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits >= 0x47800000) return sign | 0x7c00 | (bits > 0x7f800000 ? 0x200 : 0);
    // A subnormal number is a whole number of 2^-24.
    if (bits < 0x38800000) return sign | static_cast<uint16_t>(std::nearbyintf(float_of(bits) * 0x1p24f));
    return static_cast<uint16_t>(sign | ((bits - 0x38000000 + 0xfff + (bits >> 13 & 1)) >> 13));
}

}  // namespace
