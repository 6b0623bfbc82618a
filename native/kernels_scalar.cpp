#define KERNELS_NAME "scalar"
#include "simd_scalar.h"
#include "kernels.inl"

namespace smallpress {
const Kernels& kernels_scalar() { return TABLE; }
}  // namespace smallpress
