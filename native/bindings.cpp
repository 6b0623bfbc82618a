// What Python sees: arrays are checked here, so that nothing behind this file can be handed a wrong one.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
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

void set_low_rank(Model& model, int64_t adapter, const std::string& name, Floats a, Floats b) {
    require(adapter >= 1 && adapter <= model.n_adapters(), "there is no such adapter");
    require(a.ndim() == 2 && b.ndim() == 2 && a.shape(0) == b.shape(1), "a is [rank, n_in] and b [n_out, rank]");
    model.set_low_rank(adapter, name, a.data(), b.data(), a.shape(0), a.shape(1), b.shape(0));
}

// tables: the page tables of all sequences one after another; starts[n]: where that of row n begins.
std::vector<const int64_t*> tables_of(const Model& model, Ids ids, Ids positions, Ids tables, Ids starts,
                                      Ids logit_rows, std::optional<Ids> adapters = std::nullopt) {
    const int64_t N = ids.shape(0), n_entries = tables.shape(0);
    for (const Ids& of_rows : {positions, starts, adapters.value_or(ids)})
        require(static_cast<int64_t>(of_rows.shape(0)) == N, "ids, positions, starts and adapters differ in length");
    std::vector<const int64_t*> table_of(N);
    for (int64_t n = 0; n < N; n++) {
        require(ids(n) >= 0 && ids(n) < model.config().vocab_size, "an id is outside the vocabulary");
        require(positions(n) >= 0 && starts(n) >= 0 && starts(n) + positions(n) / model.page_size() < n_entries,
                "a position is beyond its page table");
        require(!adapters || ((*adapters)(n) >= 0 && (*adapters)(n) <= model.n_adapters()), "there is no such adapter");
        table_of[n] = tables.data() + starts(n);
    }
    for (int64_t i = 0; i < n_entries; i++)
        require(tables(i) >= 0 && tables(i) < model.n_pages(), "there is no such page");
    for (size_t i = 0; i < logit_rows.shape(0); i++)
        require(logit_rows(i) >= 0 && logit_rows(i) < N, "logits are asked of a row that is not there");
    return table_of;
}

void forward(Model& model, Ids ids, Ids positions, Ids tables, Ids starts, Ids logit_rows,
             std::optional<Ids> adapters) {
    const int64_t N = ids.shape(0);
    const auto table_of = tables_of(model, ids, positions, tables, starts, logit_rows, adapters);
    nb::gil_scoped_release free;
    model.forward({N, ids.data(), positions.data(), table_of.data(), adapters ? adapters->data() : nullptr},
                  logit_rows.data(), logit_rows.shape(0));
}

void predict(Model& model, int64_t k, Floats before, Ids ids, Ids positions, Ids tables, Ids starts, Ids logit_rows) {
    const int64_t N = ids.shape(0);
    require(k >= 0 && k < model.config().n_modules, "there is no such module");
    require(before.ndim() == 2 && static_cast<int64_t>(before.shape(0)) == N &&
                static_cast<int64_t>(before.shape(1)) == model.config().dim,
            "a row of the stream belongs to each token");
    const auto table_of = tables_of(model, ids, positions, tables, starts, logit_rows);
    nb::gil_scoped_release free;
    model.predict(k, {N, ids.data(), positions.data(), table_of.data(), nullptr}, before.data(), logit_rows.data(),
                  logit_rows.shape(0));
}

// A copy of the last pass' rows after its norm.
auto hidden(const Model& model) {
    const size_t N = model.n_hidden(), dim = model.config().dim;
    return numpy(std::vector<float>(model.hidden(), model.hidden() + N * dim), {N, dim});
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
void bind_tree(nb::module_& m);

NB_MODULE(_native, m) {
    bind_kernels(m);
    bind_optimizer(m);
    bind_product(m);
    bind_tree(m);
    // Of what a format of files becomes; 0 for one that is not read here.
    m.def("packed_bits", [](const std::string& name) {
        const BlockFormat* format = block_format(name);
        return !format ? 0 : format->regroup ? 4 : 8;
    });
    nb::class_<Model>(m, "Model")
        .def(
            "__init__",
            [](Model* self, const nb::dict& config, int64_t n_pages, int64_t page_size, int n_threads,
               const std::string& kernels_name, bool eight_bit_cache) {
                require(n_pages > 0 && page_size > 0, "there is at least one page of one token");
                new (self) Model(config_of(config), n_pages, page_size, n_threads, kernels_name, eight_bit_cache);
            },
            nb::arg("config"), nb::kw_only(), nb::arg("n_pages"), nb::arg("page_size"), nb::arg("n_threads"),
            nb::arg("kernels") = "", nb::arg("eight_bit_cache") = false)
        .def("set", &set, nb::arg("name"), nb::arg("values"), nb::arg("bits") = 8)
        .def("set_blocks", &set_blocks)
        .def("add_adapter", &Model::add_adapter)
        .def("set_low_rank", &set_low_rank)
        .def("copy_page",
             [](Model& model, int64_t source, int64_t target) {
                 const int64_t n = model.n_pages();
                 require(source >= 0 && source < n && target >= 0 && target < n, "there is no such page");
                 model.copy_page(source, target);
             })
        .def("read_pages", &read_pages)
        .def("write_pages", &write_pages)
        .def("forward", &forward, nb::arg("ids"), nb::arg("positions"), nb::arg("tables"), nb::arg("starts"),
             nb::arg("logit_rows"), nb::arg("adapters") = nb::none())
        .def("predict", &predict)
        .def("hidden", &hidden)
        .def("sample", &sample)
        .def("logits", &logits)
        .def("reset", &Model::reset)
        .def_prop_ro("kernels", &Model::kernels_name)
        .def_prop_ro("page_bytes", &Model::page_bytes)
        .def_prop_ro("cache_bytes", &Model::cache_bytes)
        .def_prop_ro("weight_bytes", &Model::weight_bytes);
}
