// A tiny model with random weights on every table: batches, shared pages, draws, any number of threads.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <stdexcept>

#include "check.h"
#include "model.h"

namespace check {
namespace {

using namespace smallpress;

// No size is a multiple of sixteen but that of the heads together, so that one weight can be in Q4; pages of seven
// tokens end within the sixteen that keys lie in.
constexpr Config CONFIG{44, 2, 8, 2, 20, 70, 131, 1e-5f, 10000.0, false};
constexpr int64_t N_PAGES = 12, PAGE_SIZE = 7, V = CONFIG.vocab_size;
// A code that rounding puts elsewhere moves a logit by a thousandth of the largest, which is about 5.
constexpr double LOGITS = 0.03;

struct Weight {
    int64_t n_rows, n_columns;
    std::vector<float> values;
};

// All that the model has, by name, with every bias that one may have.
std::map<std::string, Weight> make_weights() {
    constexpr int64_t dim = CONFIG.dim, inter = CONFIG.inter_dim;
    constexpr int64_t q = CONFIG.n_heads * CONFIG.head_dim, kv = CONFIG.n_kv_heads * CONFIG.head_dim;
    std::map<std::string, Weight> all{{"embed.weight", {V, dim, {}}}, {"head.weight", {V, dim, {}}}};
    all["norm.weight"] = {dim, 0, {}};
    const std::map<std::string, std::pair<int64_t, int64_t>> layer{
        {"attn.q", {q, dim}},       {"attn.k", {kv, dim}},    {"attn.v", {kv, dim}},      {"attn.o", {dim, q}},
        {"mlp.gate", {inter, dim}}, {"mlp.up", {inter, dim}}, {"mlp.down", {dim, inter}},
    };
    for (int64_t i = 0; i < CONFIG.n_layers; i++) {
        const std::string start = "layers." + std::to_string(i) + ".";
        for (const char* norm : {"attn_norm.weight", "mlp_norm.weight"}) all[start + norm] = {dim, 0, {}};
        for (const auto& [name, size] : layer) {
            all[start + name + ".weight"] = {size.first, size.second, {}};
            all[start + name + ".bias"] = {size.first, 0, {}};
        }
    }
    Random random(11);
    for (auto& [name, weight] : all) {
        weight.values = random.normals(weight.n_rows * std::max<int64_t>(1, weight.n_columns));
        const bool norm = name.find("norm") != std::string::npos;
        for (float& x : weight.values) x = (norm ? 1.0f : 0.0f) + 0.2f * x;
    }
    return all;
}

const std::map<std::string, Weight>& weights() {
    static const std::map<std::string, Weight> all = make_weights();
    return all;
}

// All in 8 bits, or in every coding that there is in turn.
void give_weights(Model& model, bool mixed) {
    constexpr Coding TURNS[] = {Coding::Q8, Coding::Q4_1, Coding::BF16};
    int turn = 0;
    for (const auto& [name, weight] : weights()) {
        const auto& [n_rows, n_columns, values] = weight;
        if (mixed && n_columns && n_columns % HALF == 0)
            model.set_blocks(name, *block_format("Q4_0"), q4_0(values).data(), n_rows, n_columns / 32 * 18);
        else
            model.set(name, values.data(), n_rows, n_columns, mixed && n_columns ? TURNS[turn++ % 3] : Coding::Q8);
    }
}

Model tiny_model(const Kernels& k, int n_threads) { return Model(CONFIG, N_PAGES, PAGE_SIZE, n_threads, k.name); }

// Tokens of one sequence, and the pages it has.
struct Sequence {
    std::vector<int64_t> ids, table;
};

const Sequence LONG{{1, 5, 130, 33, 33, 2, 71, 18, 7, 5, 9, 100, 64, 63, 12, 3, 8}, {4, 0, 7}};
const Sequence SHORT{{9, 0, 77, 128, 15, 6}, {2}};
const Sequence OTHER{{20, 21, 22, 23, 24, 25, 26, 27, 28, 29}, {9, 1}};

// A step over tokens [from, to) of some sequences; keeps the logits of every row.
class Step {
public:
    Step& take(const Sequence& sequence, int64_t from, int64_t to) {
        for (int64_t i = from; i < to; i++) {
            ids_.push_back(sequence.ids[i]);
            positions_.push_back(i);
            tables_.push_back(sequence.table.data());
            logit_rows_.push_back(logit_rows_.size());
        }
        return *this;
    }

    std::vector<float> run(Model& model) const {
        const int64_t N = ids_.size();
        model.forward({N, ids_.data(), positions_.data(), tables_.data()}, logit_rows_.data(), N);
        return std::vector<float>(model.logits(), model.logits() + N * V);
    }

private:
    std::vector<int64_t> ids_, positions_, logit_rows_;
    std::vector<const int64_t*> tables_;
};

std::vector<float> rows(const std::vector<float>& logits, int64_t from, int64_t to) {
    return std::vector<float>(logits.begin() + from * V, logits.begin() + to * V);
}

void append(std::vector<float>& to, const std::vector<float>& from) { to.insert(to.end(), from.begin(), from.end()); }

// Prefill and decode mixed: LONG's logits, put together from five steps in which others come and go.
std::vector<float> in_batches(Model& model) {
    std::vector<float> found = rows(Step().take(SHORT, 0, 4).take(LONG, 0, 3).run(model), 4, 7);
    append(found, rows(Step().take(LONG, 3, 4).take(OTHER, 0, 10).run(model), 0, 1));
    append(found, Step().take(LONG, 4, 15).run(model));
    append(found, rows(Step().take(SHORT, 4, 5).take(LONG, 15, 16).run(model), 1, 2));
    append(found, Step().take(LONG, 16, 17).run(model));
    return found;
}

void check_batches(Model& model, const std::string& what) {
    const std::vector<float> alone = Step().take(LONG, 0, 17).run(model);
    model.reset();
    expect(in_batches(model) == alone, what + ": a sequence alone and in batches gives the same logits to the bit");
    // A sequence that begins as LONG does, on a copy of the page they share.
    Sequence twin = LONG;
    twin.table = {4, 11, 3};
    twin.ids[9] = 50;
    model.copy_page(0, 11);
    std::vector<float> found = Step().take(twin, 9, 17).run(model);
    Sequence apart = twin;
    apart.table = {5, 6, 8};
    expect(rows(Step().take(apart, 0, 17).run(model), 9, 17) == found, what + ": shared and copied pages are the same");
    found = Step().take(LONG, 9, 17).run(model);
    expect(found == rows(alone, 9, 17), what + ": the page that was copied from is as it was");
}

void check_draws(Model& model, const std::string& what) {
    const std::vector<float> logits = Step().take(LONG, 0, 17).run(model);
    const float* row = logits.data() + 16 * V;
    const int64_t best = std::max_element(row, row + V) - row;
    std::vector<double> weights(V);
    double total = 0.0;
    for (int64_t i = 0; i < V; i++) total += weights[i] = std::exp(static_cast<double>(row[i]));
    std::vector<Draw> draws{{0.0f, 1.0f, 0.0f, 0, 0.3}, {1.0f, 1.0f, 0.0f, 1, 0.99}, {1.0f, 1e-9f, 0.0f, 0, 0.99}};
    for (const double uniform : {0.0, 0.1, 0.5, 0.9, 1.0 - 0x1p-53}) draws.push_back({1.0f, 1.0f, 0.0f, 0, uniform});
    for (const double uniform : {0.0, 0.5, 1.0 - 0x1p-53}) draws.push_back({0.7f, 0.9f, 0.05f, 20, uniform});
    const std::vector<Drawn> drawn = model.sample(std::vector<int64_t>(draws.size(), 16), draws);
    for (size_t i = 0; i < draws.size(); i++) {
        const int64_t id = drawn[i].id;
        if (id < 0 || id >= V) return expect(false, what + ": an id outside the vocabulary is drawn");
        const bool certain = i < 3, plain = !certain && draws[i].top_k == 0;
        expect(!certain || id == best, what + ": the likeliest id is drawn where there is no choice");
        double below = 0.0;
        for (int64_t j = 0; j < id; j++) below += weights[j] / total;
        const double u = draws[i].uniform, slack = 1e-5;
        expect(!plain || (below <= u + slack && u <= below + weights[id] / total + slack), what + ": the draw's id");
        const double logprob = std::log(weights[id] / total);
        expect(!(certain || plain) || std::fabs(drawn[i].logprob - logprob) <= 1e-5, what + ": its logprob");
    }
}

// Weights in the blocks of a file, in place of others in other codings.
void check_blocks(const Kernels& k) {
    Model direct = tiny_model(k, 2), from_file = tiny_model(k, 2);
    give_weights(direct, false);
    give_weights(from_file, true);
    for (const auto& [name, weight] : weights()) {
        const auto& [n_rows, n_columns, values] = weight;
        const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
        if (n_columns) from_file.set_blocks(name, *block_format("F32"), bytes, n_rows, n_columns * 4);
    }
    expect(Step().take(LONG, 0, 17).run(direct) == Step().take(LONG, 0, 17).run(from_file),
           std::string(k.name) + ": blocks of floats are the floats");
}

void check_bad_weights(const Kernels& k) {
    Model model = tiny_model(k, 1);
    give_weights(model, false);
    const std::vector<float> huge(CONFIG.dim, 3e38f), broken(V * CONFIG.dim, INFINITY);
    auto refuses = [&](const std::string& name, int64_t n_rows, int64_t n_columns, Coding coding) {
        try {
            model.set(name, broken.data(), n_rows, n_columns, coding);
            expect(false, std::string(k.name) + ": infinite numbers are taken for " + name);
        } catch (const std::overflow_error&) {
        }
    };
    for (const Coding coding : {Coding::Q8, Coding::Q4_1, Coding::BF16}) refuses("head.weight", V, CONFIG.dim, coding);
    refuses("norm.weight", CONFIG.dim, 0, Coding::Q8);
    give_weights(model, false);
    model.set("norm.weight", huge.data(), CONFIG.dim, 0, Coding::Q8);
    Step().take(LONG, 0, 17).run(model);
    const std::vector<Drawn> drawn = model.sample({16}, {{1.0f, 1.0f, 0.0f, 0, 0.5}});
    expect(drawn[0].id == -1, std::string(k.name) + ": logits that are not finite are drawn from");
}

// Pages in which numbers were lost give those who get them next nothing of it; an odd length ends within a pair.
void check_poison(const Kernels& k) {
    Model model = tiny_model(k, 1);
    give_weights(model, false);
    const std::vector<float> clean = Step().take(SHORT, 0, 5).run(model), huge(CONFIG.dim, 3e38f);
    model.set("layers.0.attn_norm.weight", huge.data(), CONFIG.dim, 0, Coding::Q8);
    const std::vector<float> lost = Step().take(SHORT, 0, 6).run(model);
    expect(std::none_of(lost.begin(), lost.end(), [](float x) { return std::isfinite(x); }), "numbers are lost");
    give_weights(model, false);
    expect(Step().take(SHORT, 0, 5).run(model) == clean, std::string(k.name) + ": a page of NaN is used again");
}

}  // namespace

void check_model() {
    std::vector<float> scalar[2];
    for (const Kernels* k : tables()) {
        for (const bool mixed : {false, true}) {
            std::vector<float> first;
            for (const int n_threads : {1, 3}) {
                const std::string what = std::string(k->name) + (mixed ? ", mixed codings, " : ", ") +
                                         std::to_string(n_threads) + " threads";
                Model model = tiny_model(*k, n_threads);
                give_weights(model, mixed);
                const std::vector<float> logits = Step().take(LONG, 0, 17).run(model);
                if (first.empty()) first = logits;
                if (scalar[mixed].empty()) scalar[mixed] = logits;
                expect(logits == first, what + ": the number of threads changes nothing");
                expect_close(logits.data(), scalar[mixed].data(), logits.size(), LOGITS, what + ": logits");
                if (n_threads == 1) continue;
                check_batches(model, what);
                check_draws(model, what);
            }
        }
        check_blocks(*k);
        check_bad_weights(*k);
        check_poison(*k);
    }
}

}  // namespace check
