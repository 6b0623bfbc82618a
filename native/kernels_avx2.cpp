#define KERNELS_NAME "avx2"
#include "simd_avx2.h"
#include "kernels.inl"

namespace smallpress {
const Kernels& kernels_avx2() { return TABLE; }
}  // namespace smallpress
