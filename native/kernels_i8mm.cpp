#define KERNELS_NAME "i8mm"
#include "simd_neon.h"
#include "kernels.inl"

namespace smallpress {
const Kernels& kernels_i8mm() { return TABLE; }
}  // namespace smallpress
