// The optimizer's step over many tensors, their blocks spread over the threads of a pool.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "kernels.h"
#include "shared_pool.h"
#include "training.h"

namespace nb = nanobind;

namespace smallpress {

DynamicMap::DynamicMap(const float* given, bool has_sign) : has_sign(has_sign), zero(has_sign ? 127 : 0) {
    std::copy(given, given + 256, values);
    const float* ranked = values + zero;
    limits[0] = -1.0f;
    const float cut = has_sign ? 0.0f : 0.5f;
    starts[0] = lasts[0] = cut;
    for (int level = 1, rank = 1; level < N_LEVELS; level++) {
        const int n = level == N_LEVELS - 1 ? 1 : (has_sign ? 1 : 2) << (level - 1), last = rank + n - 1;
        const double width = n > 1 ? (static_cast<double>(ranked[last]) - ranked[rank]) / (n - 1) : 0.0;
        limits[level] = (ranked[rank - 1] + ranked[rank]) / 2.0f;
        slopes[level] = n > 1 ? static_cast<float>(1.0 / width) : 0.0f;
        starts[level] = static_cast<float>(rank + cut - (n > 1 ? ranked[rank] / width : 0.0));
        lasts[level] = static_cast<float>(last) + cut;
        rank += n;
    }
    if (!has_sign) {  // nothing above 0 is rank 0: a line from rank 1 there to rank 2 between its two values
        limits[1] = 0.0f;
        slopes[1] = 2.0f / (ranked[1] + ranked[2]);
        starts[1] = 1.0f;
    }
}

namespace {

using Floats = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ConstFloats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Any = nb::ndarray<nb::ndim<1>, nb::c_contig, nb::device::cpu>;

struct Tensor {
    float* parameters;
    const float* gradient;
    MomentBlock first, second;
    Moments format;
    int64_t n, first_block;  // counted over all tensors
};

void require(bool condition, const char* what) {
    if (!condition) throw std::invalid_argument(what);
}

Moments format_of(nb::dlpack::dtype type) {
    if (type == nb::dtype<float>()) return Moments::FP32;
    if (type == nb::dtype<uint16_t>()) return Moments::BF16;
    require(type == nb::dtype<uint8_t>(), "moments are fp32, bf16 as uint16, or codes of uint8");
    return Moments::DYNAMIC;
}

MomentBlock moment(nb::handle numbers, nb::handle scales, int64_t n) {
    const Any array = nb::cast<Any>(numbers);
    require(static_cast<int64_t>(array.shape(0)) == n, "a moment differs in length from its parameters");
    if (format_of(array.dtype()) != Moments::DYNAMIC) return {array.data(), nullptr};
    const Floats scale = nb::cast<Floats>(scales);
    require(static_cast<int64_t>(scale.shape(0)) == (n + QUANT_BLOCK - 1) / QUANT_BLOCK,
            "a moment in 8 bits has a scale for each block");
    return {array.data(), scale.data()};
}

Tensor tensor_of(nb::tuple row, int64_t first_block) {
    const Floats parameters = nb::cast<Floats>(row[0]);
    const ConstFloats gradient = nb::cast<ConstFloats>(row[1]);
    const int64_t n = parameters.shape(0);
    require(static_cast<int64_t>(gradient.shape(0)) == n, "a gradient differs in length from its parameters");
    const Moments format = format_of(nb::cast<Any>(row[2]).dtype());
    require(format == format_of(nb::cast<Any>(row[4]).dtype()), "both moments have the same format");
    return {parameters.data(), gradient.data(), moment(row[2], row[3], n), moment(row[4], row[5], n), format, n,
            first_block};
}

MomentBlock at(MomentBlock moment, Moments format, int64_t block) {
    const int64_t bytes = format == Moments::FP32 ? 4 : format == Moments::BF16 ? 2 : 1;
    return {static_cast<uint8_t*>(moment.numbers) + block * QUANT_BLOCK * bytes, moment.scale + block};
}

// tensors: (parameters, gradient, first moments, their scales, second moments, their scales), one-dimensional each.
void adamw(int n_threads, const DynamicMap& first_map, const DynamicMap& second_map, nb::list rows, double beta1,
           double beta2, float eps, float shrink, float stride, float correction, const std::string& kernels_name) {
    std::vector<Tensor> tensors;
    int64_t n_blocks = 0;
    for (nb::handle row : rows) {
        tensors.push_back(tensor_of(nb::cast<nb::tuple>(row), n_blocks));
        n_blocks += (tensors.back().n + QUANT_BLOCK - 1) / QUANT_BLOCK;
    }
    const AdamW step{static_cast<float>(1.0 - beta1),
                     static_cast<float>(1.0 - beta2),
                     static_cast<float>(beta2),
                     eps,
                     shrink,
                     stride,
                     correction};
    const Training& training = *kernels(kernels_name).training;
    nb::gil_scoped_release free;
    shared_pool(n_threads).split(n_blocks, 1, [&](int, int64_t begin, int64_t end) {
        auto tensor = std::upper_bound(tensors.begin(), tensors.end(), begin,
                                       [](int64_t block, const Tensor& t) { return block < t.first_block; });
        for (--tensor; begin < end; ++tensor) {
            const int64_t n_here = (tensor->n + QUANT_BLOCK - 1) / QUANT_BLOCK;
            const int64_t last = std::min(end, tensor->first_block + n_here);
            for (; begin < last; begin++) {
                const int64_t block = begin - tensor->first_block, from = block * QUANT_BLOCK;
                training.adamw(step, first_map, second_map, tensor->format, at(tensor->first, tensor->format, block),
                               at(tensor->second, tensor->format, block), tensor->gradient + from,
                               std::min(QUANT_BLOCK, tensor->n - from), tensor->parameters + from);
            }
        }
    });
}

}  // namespace
}  // namespace smallpress

void bind_optimizer(nb::module_& m) {
    using namespace smallpress;
    nb::class_<DynamicMap>(m, "DynamicMap")
        .def(
            "__init__",
            [](DynamicMap* self, ConstFloats values, bool has_sign) {
                require(values.shape(0) == 256, "a map has 256 values");
                new (self) DynamicMap(values.data(), has_sign);
            },
            nb::arg("values"), nb::arg("has_sign"));
    m.def("adamw", &adamw, nb::arg("n_threads"), nb::arg("first_map"), nb::arg("second_map"), nb::arg("tensors"),
          nb::kw_only(), nb::arg("beta1"), nb::arg("beta2"), nb::arg("eps"), nb::arg("shrink"), nb::arg("stride"),
          nb::arg("correction"), nb::arg("kernels") = "");
}
