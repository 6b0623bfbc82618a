// What Python sees: arrays are checked here, so that nothing behind this file can be handed a wrong one.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "arrays.h"
#include "blocks.h"
#include "model.h"

namespace nb = nanobind;
using namespace smallpress;
using Ids = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using PageBytes = nb::ndarray<uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Blocks = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

namespace {

void require(bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(what);
}

Coding coding_of(int bits) {
    require(bits == 4 || bits == 8 || bits == 16, "weights have 4, 8 or 16 bits");
    return bits == 4 ? Coding::Q4_1 : bits == 8 ? Coding::Q8 : Coding::BF16;
}

void set(Model& model, const std::string& name, Floats values, int bits) {
    require(values.ndim() == 1 || values.ndim() == 2, "a weight has one or two dimensions");
    const Coding coding = coding_of(bits);
    nb::gil_scoped_release free;
    model.set(name, values.data(), values.shape(0), values.ndim() == 2 ? values.shape(1) : 0, coding);
}

void set_blocks(Model& model, const std::string& name, const std::string& format_name, Blocks rows) {
    const BlockFormat* format = block_format(format_name);
    require(format, "there is no reader of this format of blocks");
    require(rows.shape(1) > 0 && rows.shape(1) % format->bytes == 0, "a row is not a whole number of blocks");
    nb::gil_scoped_release free;
    model.set_blocks(name, *format, rows.data(), rows.shape(0), rows.shape(1));
}

void require_pages(const Model& model, Ids pages, size_t n_rows, size_t n_bytes) {
    require(n_rows == pages.shape(0) && static_cast<int64_t>(n_bytes) == model.page_bytes(),
            "the bytes are not those of so many pages");
    for (size_t i = 0; i < pages.shape(0); i++)
        require(pages(i) >= 0 && pages(i) < model.n_pages(), "there is no such page");
}

void read_pages(const Model& model, Ids pages, PageBytes into) {
    require_pages(model, pages, into.shape(0), into.shape(1));
    nb::gil_scoped_release free;
    for (size_t i = 0; i < pages.shape(0); i++) model.read_page(pages(i), into.data() + i * into.shape(1));
}

void write_pages(Model& model, Ids pages, Blocks from) {
    require_pages(model, pages, from.shape(0), from.shape(1));
    nb::gil_scoped_release free;
    for (size_t i = 0; i < pages.shape(0); i++) model.write_page(pages(i), from.data() + i * from.shape(1));
}

// tables: the page tables of all sequences one after another; starts[n]: where that of row n begins.
void forward(Model& model, Ids ids, Ids positions, Ids tables, Ids starts, Ids logit_rows) {
    const int64_t N = ids.shape(0), n_entries = tables.shape(0);
    require(static_cast<int64_t>(positions.shape(0)) == N && static_cast<int64_t>(starts.shape(0)) == N,
            "ids, positions and starts differ in length");
    std::vector<const int64_t*> table_of(N);
    for (int64_t n = 0; n < N; n++) {
        require(ids(n) >= 0 && ids(n) < model.config().vocab_size, "an id is outside the vocabulary");
        require(positions(n) >= 0 && starts(n) >= 0 && starts(n) + positions(n) / model.page_size() < n_entries,
                "a position is beyond its page table");
        table_of[n] = tables.data() + starts(n);
    }
    for (int64_t i = 0; i < n_entries; i++)
        require(tables(i) >= 0 && tables(i) < model.n_pages(), "there is no such page");
    for (size_t i = 0; i < logit_rows.shape(0); i++)
        require(logit_rows(i) >= 0 && logit_rows(i) < N, "logits are asked of a row that is not there");
    nb::gil_scoped_release free;
    model.forward({N, ids.data(), positions.data(), table_of.data()}, logit_rows.data(), logit_rows.shape(0));
}

nb::tuple sample(Model& model, std::vector<int64_t> rows, std::vector<float> temperatures, std::vector<int64_t> top_k,
                 std::vector<float> top_p, std::vector<float> min_p, std::vector<double> uniforms) {
    const size_t n = rows.size();
    require(
        temperatures.size() == n && top_k.size() == n && top_p.size() == n && min_p.size() == n && uniforms.size() == n,
        "the columns of the draws differ in length");
    std::vector<Draw> draws(n);
    for (size_t i = 0; i < n; i++) {
        require(rows[i] >= 0 && rows[i] < model.n_logit_rows(), "a draw is from a row without logits");
        draws[i] = {temperatures[i], top_p[i], min_p[i], top_k[i], uniforms[i]};
    }
    std::vector<Drawn> drawn;
    {
        nb::gil_scoped_release free;
        drawn = model.sample(rows, draws);
    }
    nb::list ids, logprobs;
    for (const Drawn& one : drawn) {
        ids.append(one.id);
        logprobs.append(one.logprob);
    }
    return nb::make_tuple(ids, logprobs);
}

// A copy of the last step's logits, for tests.
auto logits(const Model& model) {
    const size_t R = model.n_logit_rows(), V = model.config().vocab_size;
    return numpy(std::vector<float>(model.logits(), model.logits() + R * V), {R, V});
}

}  // namespace

Config config_of(const nb::dict& from);
void bind_kernels(nb::module_& m);
void bind_optimizer(nb::module_& m);
void bind_product(nb::module_& m);

NB_MODULE(_native, m) {
    bind_kernels(m);
    bind_optimizer(m);
    bind_product(m);
    // Of what a format of files becomes; 0 for one that is not read here.
    m.def("packed_bits", [](const std::string& name) {
        const BlockFormat* format = block_format(name);
        return !format ? 0 : format->regroup ? 4 : 8;
    });
    nb::class_<Model>(m, "Model")
        .def(
            "__init__",
            [](Model* self, const nb::dict& config, int64_t n_pages, int64_t page_size, int n_threads,
               const std::string& kernels_name) {
                require(n_pages > 0 && page_size > 0, "there is at least one page of one token");
                new (self) Model(config_of(config), n_pages, page_size, n_threads, kernels_name);
            },
            nb::arg("config"), nb::kw_only(), nb::arg("n_pages"), nb::arg("page_size"), nb::arg("n_threads"),
            nb::arg("kernels") = "")
        .def("set", &set, nb::arg("name"), nb::arg("values"), nb::arg("bits") = 8)
        .def("set_blocks", &set_blocks)
        .def("copy_page",
             [](Model& model, int64_t source, int64_t target) {
                 const int64_t n = model.n_pages();
                 require(source >= 0 && source < n && target >= 0 && target < n, "there is no such page");
                 model.copy_page(source, target);
             })
        .def("read_pages", &read_pages)
        .def("write_pages", &write_pages)
        .def("forward", &forward)
        .def("sample", &sample)
        .def("logits", &logits)
        .def("reset", &Model::reset)
        .def_prop_ro("kernels", &Model::kernels_name)
        .def_prop_ro("page_bytes", &Model::page_bytes)
        .def_prop_ro("cache_bytes", &Model::cache_bytes)
        .def_prop_ro("weight_bytes", &Model::weight_bytes);
}
