#define KERNELS_NAME "neon"
#include "simd_neon.h"
#include "kernels.inl"

namespace smallpress {
const Kernels& kernels_neon() { return TABLE; }
}  // namespace smallpress
