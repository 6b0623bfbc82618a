// Single kernels by name, for the tests that hold every instruction set against the reference.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "arrays.h"
#include "blocks.h"
#include "kernels.h"
#include "kv_page.h"
#include "machine.h"

namespace nb = nanobind;
using namespace smallpress;
using Vector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

namespace {

Activations quantized(const Kernels& k, Matrix x) {
    Activations out;
    out.reserve(x.shape(0), x.shape(1));
    for (size_t row = 0; row < x.shape(0); row++) {
        k.quantize(x.data() + row * x.shape(1), x.shape(1), out, row);
        k.narrow(x.data() + row * x.shape(1), x.shape(1), out, row);
    }
    return out;
}

// Row 5 of a tile, for weights in 8 or in 4 bits: its codes, its scales, and the sums of every 32 codes (in 4 bits).
nb::tuple quantize(const std::string& name, Vector x, int bits) {
    constexpr int64_t ROW = 5, TILE = Activations::TILE;
    const int64_t n = x.shape(0);
    Activations out;
    out.reserve(TILE, n);
    kernels(name).quantize(x.data(), n, out, ROW);
    std::vector<int32_t> codes(out.n_blocks * BLOCK);
    std::vector<float> sums(bits == 4 ? codes.size() / HALF : 0);
    for (size_t i = 0; i < codes.size(); i++) {
        if (bits == 4) {
            const int8_t* half = out.fours(ROW) + i / HALF * TILE * BLOCK + i % HALF;
            codes[i] = half[0] * (1 << Activations::LOW_BITS) + half[HALF];
            sums[i / HALF] = out.sums(ROW)[i / HALF * TILE];
        } else {
            codes[i] = out.eights(ROW)[i / BLOCK * TILE * BLOCK + i % BLOCK];
        }
    }
    std::vector<float> scales(bits == 4 ? 1 : out.n_spans(), out.four_scales[ROW]);
    for (size_t span = 0; bits == 8 && span < scales.size(); span++) scales[span] = out.spans(ROW)[span * TILE];
    return nb::make_tuple(numpy(codes, {codes.size()}), numpy(scales, {scales.size()}), numpy(sums, {sums.size()}));
}

// x [M, K] times the rows of the panels, in SET or ADD to ones.
auto product(const std::string& name, Matrix x, const Panels& panels, bool add) {
    const Kernels& k = kernels(name);
    const int64_t M = x.shape(0), N = panels.N;
    if (static_cast<int64_t>(x.shape(1)) != panels.K) throw std::invalid_argument("the factors differ in columns");
    std::vector<float> out(M * N, add ? 1.0f : 0.0f);
    k.product(quantized(k, x), M, panels, 0, panels.n_panels(), out.data(), N, add ? Store::ADD : Store::SET);
    return numpy(out, {x.shape(0), static_cast<size_t>(N)});
}

Panels pack(const std::string& name, Matrix w, int bits) {
    const int64_t N = w.shape(0), K = w.shape(1);
    Panels panels(bits == 4 ? Coding::Q4_1 : bits == 8 ? Coding::Q8 : Coding::BF16, N, K);
    for (int64_t panel = 0; panel < panels.n_panels(); panel++)
        kernels(name).pack(w.data() + panel * PANEL * K, std::min(PANEL, N - panel * PANEL), panels, panel);
    return panels;
}

// A weight of blocks that keep their codes.
Panels regroup(const std::string& format_name, Bytes rows) {
    const BlockFormat* format = block_format(format_name);
    if (!format || !format->regroup) throw std::invalid_argument("no codes are kept of " + format_name);
    const int64_t N = rows.shape(0), row_bytes = rows.shape(1);
    Panels panels(format->coding, N, row_bytes / format->bytes * format->columns);
    for (int64_t panel = 0; panel < panels.n_panels(); panel++)
        format->regroup(rows.data() + panel * PANEL * row_bytes, row_bytes, std::min(PANEL, N - panel * PANEL), panels,
                        panel);
    return panels;
}

// fp32 of rows of blocks.
auto decode(const std::string& format_name, Bytes rows) {
    const BlockFormat* format = block_format(format_name);
    if (!format || !format->decode) throw std::invalid_argument("there is no decoder of " + format_name);
    const size_t N = rows.shape(0), K = rows.shape(1) / format->bytes * format->columns;
    std::vector<float> out(N * K);
    for (size_t row = 0; row < N; row++) format->decode(rows.data() + row * rows.shape(1), K, out.data() + row * K);
    return numpy(out, {N, K});
}

// What a weight stands for.
auto numbers(const Panels& panels) {
    std::vector<float> out(panels.N * panels.K);
    for (int64_t row = 0; row < panels.N; row++) decode_row(panels, row, out.data() + row * panels.K);
    return numpy(out, {static_cast<size_t>(panels.N), static_cast<size_t>(panels.K)});
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
auto attend(const std::string& name, Matrix q, Matrix k, Matrix v, int64_t page_size, bool eight_bits) {
    const Kernels& table = kernels(name);
    const int64_t S = k.shape(0), D = k.shape(1), group = q.shape(0), n_pages = (S + page_size - 1) / page_size;
    const KVPage form{D, page_size, eight_bits};
    std::vector<Buffer<uint8_t>> pages;
    std::vector<const uint8_t*> keys, values;
    std::vector<uint16_t> narrow(D);
    for (int64_t page = 0; page < n_pages; page++) {
        Buffer<uint8_t> key(form.n_bytes()), value(form.n_bytes());
        for (int64_t i = 0; i < page_size && page * page_size + i < S; i++) {
            const int64_t t = page * page_size + i;
            form.put_key(table, k.data() + t * D, i, narrow.data(), key.get());
            form.put_value(table, v.data() + t * D, i, narrow.data(), value.get());
        }
        keys.push_back(key.get());
        values.push_back(value.get());
        pages.push_back(std::move(key));
        pages.push_back(std::move(value));
    }
    std::vector<float> scores(score_room(group, S)), out(group * D);
    std::vector<uint16_t> room(narrow_room(group, S, D));
    std::vector<const uint8_t*> chunks(chunk_room(S));
    table.attend({q.data(), out.data(), 0, 0, 1, S, page_size, group, D, keys.data(), values.data(), scores.data(),
                  room.data(), chunks.data(), 0, eight_bits});
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
    m.def("quantize", &quantize, nb::arg("kernels"), nb::arg("x"), nb::arg("bits") = 8);
    nb::class_<Panels>(m, "Panels").def("numbers", &numbers);
    m.def("pack", &pack, nb::arg("kernels"), nb::arg("weight"), nb::arg("bits") = 8);
    m.def("regroup", &regroup);
    m.def("decode", &decode);
    m.def("product", &product, nb::arg("kernels"), nb::arg("x"), nb::arg("panels"), nb::arg("add") = false);
    m.def("rms_norm", &rms_norm);
    m.def("swiglu", &swiglu);
    m.def("attend", &attend, nb::arg("kernels"), nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("page_size"),
          nb::arg("eight_bits") = false);
    m.def("weigh", &weigh);
    m.def("read_bandwidth", [](int n_threads) {
        Pool pool(n_threads);
        nb::gil_scoped_release free;
        return read_bandwidth(pool);
    });
    m.def("multiply_adds", [](const std::string& name, int n_threads) {
        const Kernels& k = kernels(name);
        Pool pool(n_threads);
        nb::gil_scoped_release free;
        return multiply_adds(pool, k);
    });
}
