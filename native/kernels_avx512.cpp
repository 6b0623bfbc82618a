#define KERNELS_NAME "avx512"
#include "simd_avx512.h"
#include "kernels.inl"

namespace smallpress {
const Kernels& kernels_avx512() { return TABLE; }
}  // namespace smallpress
