// What training needs of an instruction set; a part of kernels.inl.

#include "training.h"
#include "training_lanes.inl"

#include "optimizer.inl"
#include "training_product.inl"

namespace {

constexpr Training TRAINING{adamw, encode, multiply};

}  // namespace
