// What training needs of an instruction set; a part of kernels.inl.

#include "training.h"
#include "training_lanes.inl"

#include "optimizer.inl"
#include "training_product.inl"
#include "tree.inl"

namespace {

constexpr Training TRAINING{clean<adamw>,        clean<encode_factor>, clean<multiply>,
                            clean<tree_columns>, clean<tree_forward>,  clean<tree_backward>};

}  // namespace
