#define KERNELS_NAME "dotprod"
#include "simd_neon.h"
#include "kernels.inl"

namespace smallpress {
const Kernels& kernels_dotprod() { return TABLE; }
}  // namespace smallpress
