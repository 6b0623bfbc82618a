// What the machine can do at most: the floors that speeds are held against.

#pragma once

#include "kernels.h"
#include "pool.h"

namespace smallpress {

// Bytes a second that all threads together read from memory; the best of a few passes over 256 MB.
double read_bandwidth(Pool& pool);

// 8-bit multiply-adds a second of all threads together, on registers alone.
double multiply_adds(Pool& pool, const Kernels& kernels);

}  // namespace smallpress
