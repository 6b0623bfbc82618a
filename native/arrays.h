// Numbers on their way to Python.

#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <initializer_list>
#include <utility>
#include <vector>

namespace smallpress {

// A numpy array that owns the values.
template <typename T>
auto numpy(std::vector<T> values, std::initializer_list<size_t> shape) {
    auto* kept = new std::vector<T>(std::move(values));
    nanobind::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    return nanobind::ndarray<nanobind::numpy, T>(kept->data(), shape, owner);
}

}  // namespace smallpress
