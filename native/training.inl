// What training needs of an instruction set; a part of kernels.inl.

#include "training.h"
#include "training_lanes.inl"

#include "optimizer.inl"
#include "training_product.inl"
#include "tree.inl"

namespace {

constexpr Training TRAINING{adamw, encode, multiply, tree_columns, tree_forward, tree_backward};

}  // namespace
