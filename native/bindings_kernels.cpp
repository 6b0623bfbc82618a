// Single kernels by name, for the tests that hold every instruction set against the reference.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <vector>

#include "arrays.h"
#include "kernels.h"

namespace nb = nanobind;
using namespace smallpress;
using Vector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

namespace {

Activations quantized(const Kernels& k, Matrix x) {
    Activations out;
    out.reserve(x.shape(0), x.shape(1));
    for (size_t row = 0; row < x.shape(0); row++) k.quantize(x.data() + row * x.shape(1), x.shape(1), out, row);
    return out;
}

// Row 5 of a tile: its codes, scales and offsets, put one after another.
nb::tuple quantize(const std::string& name, Vector x) {
    constexpr int64_t ROW = 5, TILE = Activations::TILE;
    const int64_t n = x.shape(0);
    Activations out;
    out.reserve(TILE, n);
    kernels(name).quantize(x.data(), n, out, ROW);
    std::vector<int8_t> codes(out.n_blocks * BLOCK);
    std::vector<float> scales(out.n_blocks);
    std::vector<int32_t> offsets(out.n_blocks);
    for (int64_t i = 0; i < out.n_blocks * BLOCK; i++) codes[i] = out.codes(ROW)[i / BLOCK * TILE * BLOCK + i % BLOCK];
    for (int64_t b = 0; b < out.n_blocks; b++) {
        scales[b] = out.scales(ROW)[b * TILE];
        offsets[b] = out.offsets(ROW)[b * TILE];
    }
    const size_t blocks = out.n_blocks;
    return nb::make_tuple(numpy(codes, {blocks * BLOCK}), numpy(scales, {blocks}), numpy(offsets, {blocks}));
}

auto product_q8(const std::string& name, Matrix x, Matrix w, bool add) {
    const Kernels& k = kernels(name);
    const int64_t M = x.shape(0), N = w.shape(0), K = w.shape(1);
    PanelsQ8 panels(N, K);
    for (int64_t panel = 0; panel < panels.n_panels(); panel++)
        k.pack_q8(w.data() + panel * PANEL * K, std::min(PANEL, N - panel * PANEL), panels, panel);
    std::vector<float> out(M * N, add ? 1.0f : 0.0f);
    k.product_q8(quantized(k, x), M, panels, 0, panels.n_panels(), out.data(), N, add ? Store::ADD : Store::SET);
    return numpy(out, {x.shape(0), w.shape(0)});
}

auto rms_norm(const std::string& name, Vector x, Vector weight, float eps) {
    std::vector<float> out(x.shape(0));
    kernels(name).rms_norm(x.data(), weight.data(), x.shape(0), eps, out.data());
    return numpy(out, {x.shape(0)});
}

auto swiglu(const std::string& name, Vector gate, Vector up) {
    std::vector<float> out(gate.shape(0));
    kernels(name).swiglu(gate.data(), up.data(), gate.shape(0), out.data());
    return numpy(out, {gate.shape(0)});
}

// q [group, D] over k and v [S, D], cut into pages here.
auto attend(const std::string& name, Matrix q, Matrix k, Matrix v, int64_t page_size) {
    const Kernels& table = kernels(name);
    const int64_t S = k.shape(0), D = k.shape(1), group = q.shape(0), n_pages = (S + page_size - 1) / page_size;
    std::vector<Buffer<uint16_t>> pages;
    std::vector<const uint16_t*> keys, values;
    std::vector<uint16_t> narrow(D);
    for (int64_t page = 0; page < n_pages; page++) {
        Buffer<uint16_t> key(D * round_up(page_size, LANES)), value(D * page_size);
        for (int64_t i = 0; i < page_size && page * page_size + i < S; i++) {
            const int64_t t = page * page_size + i;
            table.to_bf16(k.data() + t * D, D, narrow.data());
            for (int64_t d = 0; d < D; d++) key[(i / LANES * D + d) * LANES + i % LANES] = narrow[d];
            table.to_bf16(v.data() + t * D, D, value.get() + i * D);
        }
        keys.push_back(key.get());
        values.push_back(value.get());
        pages.push_back(std::move(key));
        pages.push_back(std::move(value));
    }
    std::vector<float> scores(group * score_width(S)), out(group * D);
    table.attend(q.data(), keys.data(), values.data(), S, page_size, group, D, scores.data(), out.data());
    return numpy(out, {q.shape(0), q.shape(1)});
}

nb::tuple weigh(const std::string& name, Vector x, float temperature) {
    const Kernels& k = kernels(name);
    const int64_t n = x.shape(0);
    const float best = k.largest(x.data(), n);
    std::vector<float> weights(n);
    std::vector<double> sums((n + SUMMED - 1) / SUMMED);
    const double total = k.weigh(x.data(), n, best, 1.0f / temperature, weights.data(), sums.data());
    return nb::make_tuple(best, numpy(weights, {x.shape(0)}), total);
}

}  // namespace

void bind_kernels(nb::module_& m) {
    m.def("can_run", &can_run);
    m.def("best_kernels", [] { return kernels().name; });
    m.def("quantize", &quantize);
    m.def("product_q8", &product_q8, nb::arg("kernels"), nb::arg("x"), nb::arg("w"), nb::arg("add") = false);
    m.def("rms_norm", &rms_norm);
    m.def("swiglu", &swiglu);
    m.def("attend", &attend);
    m.def("weigh", &weigh);
}
