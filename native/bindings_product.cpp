// left @ right.T in 8 bits: both factors quantized, then multiplied, on the threads of a pool.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <stdexcept>

#include "kernels.h"
#include "shared_pool.h"
#include "training.h"

namespace nb = nanobind;

namespace {

using namespace smallpress;
using Array = nb::ndarray<nb::ndim<2>, nb::device::cpu>;

void require(bool condition, const char* what) {
    if (!condition) throw std::invalid_argument(what);
}

bool is_bf16(const Array& array) {
    if (array.dtype() == nb::dtype<uint16_t>()) return true;
    require(array.dtype() == nb::dtype<float>(), "matrices are fp32, or bf16 as uint16");
    return false;
}

Factor matrix(const Array& array) {
    const int64_t n_rows = array.shape(0), n_columns = array.shape(1);
    const bool straight = array.stride(1) == 1 && array.stride(0) >= n_columns;
    require(straight || (array.stride(0) == 1 && array.stride(1) >= n_rows), "a matrix has gaps between its numbers");
    return {array.data(), is_bf16(array), !straight, n_rows, n_columns, array.stride(straight ? 0 : 1)};
}

// `columns` share a scale; with `right_by_rows` so do 128 rows of the right factor.
void product(int n_threads, const Array& left, const Array& right, int64_t columns, bool right_by_rows,
             const Array& out, const std::string& kernels_name) {
    const Factor a = matrix(left), b = matrix(right), c = matrix(out);
    require(a.n_columns > 0 && a.n_columns == b.n_columns, "the factors have the same columns, one at least");
    require(!c.turned && c.n_rows == a.n_rows && c.n_columns == b.n_rows, "the product has another shape");
    require(columns > 0 && columns % Operand::STEP == 0, "a scale is of a multiple of 64 columns");
    const Training& training = *kernels(kernels_name).training;
    SharedPool& pool = shared_pool(n_threads);
    nb::gil_scoped_release free;
    static thread_local Operand lefts, rights;  // kept: fresh memory costs more than what is done with it
    lefts.reserve(false, false, a.n_rows, a.n_columns, columns);
    rights.reserve(true, right_by_rows, b.n_rows, b.n_columns, columns);
    const Operand &l = lefts, &r = rights;  // those of this thread, on the others too
    pool.split(l.n_tiles, 1, [&](int, int64_t begin, int64_t end) { training.encode(a, l, begin, end); });
    pool.split(r.n_tiles, right_by_rows ? Operand::BLOCK_TILES : 1,
               [&](int, int64_t begin, int64_t end) { training.encode(b, r, begin, end); });
    const Output to{const_cast<void*>(c.numbers), c.is_bf16, c.stride};
    pool.split(r.n_tiles, 2, [&](int, int64_t begin, int64_t end) { training.multiply(l, r, begin, end, to); });
}

}  // namespace

void bind_product(nb::module_& m) {
    m.def("product_8bit", &product, nb::arg("n_threads"), nb::arg("left"), nb::arg("right"), nb::arg("columns"),
          nb::arg("right_by_rows"), nb::arg("out"), nb::arg("kernels") = "");
}
