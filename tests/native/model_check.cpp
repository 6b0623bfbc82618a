// A tiny model with random weights on every table: batches, shared pages, draws, any number of threads.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <stdexcept>

#include "check.h"
#include "model.h"
#include "rope.h"

namespace check {
namespace {

using namespace smallpress;

constexpr int64_t N_PAGES = 12, PAGE_SIZE = 7, V = 131;
// A code that rounding puts elsewhere moves a logit by a thousandth of the largest, which is about 5.
constexpr double LOGITS = 0.03;
// Queries over latents are rounded besides, and products follow on products.
constexpr double LATENT_LOGITS = 0.1;

std::vector<double> turns(int64_t D, double base) {
    std::vector<double> found;
    for (int64_t i = 0; i < D; i += 2) found.push_back(std::pow(base, -static_cast<double>(i) / D));
    return found;
}

// No size is a multiple of sixteen but that of the heads together, so that one weight can be in Q4; pages of seven
// tokens end within the sixteen that keys lie in.
Config plain() {
    Config config{44, 8, 2, 20, V, 1e-5f, false};
    config.layers = {{70, 0, 0, false}, {70, 0, 0, false}};
    config.ropes = {{turns(20, 1e4)}};
    return config;
}

// Windows that begin within a page, with a rope of their own; all norms there are, gelu, neighbours that turn together.
Config windowed() {
    Config config = plain();
    config.layers = {{70, 9, 1, true}, {70, 0, 0, true}};
    config.ropes = {{turns(20, 1e4), 1.25, 2.0, 8.0}, {turns(20, 100.0)}};
    config.interleaved = config.post_norms = true;
    config.head_norm = HeadNorm::AFTER_ROPE;
    config.embed_scale = 3.0f;
    config.score_scale = 0.3f;
    return config;
}

// Latents, more heads than lanes, experts in groups behind a dense layer; a module of multi-token prediction.
Config latent() {
    Config config{44, 18, 1, 14, V, 1e-5f, false};
    config.layers = {{70, 0, 0, false}, {0, 0, 0, false}, {0, 0, 0, false}};
    config.n_modules = 1;
    config.ropes = {{turns(6, 1e4)}};
    config.interleaved = true;
    config.score_scale = 0.25f;
    config.latent = Latent{20, 33, 8, 6, 10, 1e-6f};
    config.experts = Experts{8, 3, 21, 42, 4, 2, true, true, true, true, 2.5};
    return config;
}

// Of its parts those that `latent` has not.
Config bare() {
    Config config = latent();
    config.layers = {{0, 0, 0, true}, {0, 0, 0, true}};
    config.n_modules = 0;
    config.post_norms = true;
    config.latent->q_rank = 0;
    config.experts = Experts{5, 2, 21, 0, 1, 1, false, false, false, false, 1.0};
    return config;
}

struct Weight {
    int64_t n_rows, n_columns;
    std::vector<float> values;
};
using Weights = std::map<std::string, Weight>;

struct Kind {
    std::string name;
    Config config;
    Weights weights;
};

void add_attention(const Config& config, const std::string& start, Weights& all) {
    const int64_t dim = config.dim, H = config.n_heads, D = config.head_dim, kv = config.n_kv_heads * D;
    auto linear = [&](const std::string& name, int64_t n_rows, int64_t n_columns, bool bias = true) {
        all[start + name + ".weight"] = {n_rows, n_columns, {}};
        if (bias) all[start + name + ".bias"] = {n_rows, 0, {}};
    };
    if (!config.latent) {
        linear("q", H * D, dim);
        linear("k", kv, dim);
        linear("v", kv, dim);
        linear("o", dim, H * D);
        if (config.head_norm != HeadNorm::NONE)
            for (const char* norm : {"q_norm.weight", "k_norm.weight"}) all[start + norm] = {D, 0, {}};
        return;
    }
    const Latent& latent = *config.latent;
    if (latent.q_rank) {
        linear("q_a", latent.q_rank, dim);
        all[start + "q_a_norm.weight"] = {latent.q_rank, 0, {}};
    }
    linear(latent.q_rank ? "q_b" : "q", H * D, latent.q_rank ? latent.q_rank : dim, false);
    linear("kv_a", latent.kv_rank + latent.rope_dim, dim);
    all[start + "kv_a_norm.weight"] = {latent.kv_rank, 0, {}};
    linear("kv_b", H * (latent.nope_dim + latent.v_dim), latent.kv_rank, false);
    linear("o", dim, H * latent.v_dim);
}

void add_feed_forward(const Config& config, int64_t inter, const std::string& start, Weights& all) {
    const int64_t dim = config.dim;
    auto gated = [&](const std::string& name, int64_t width) {
        for (const char* part : {"gate", "up"}) all[name + part + ".weight"] = {width, dim, {}};
        all[name + "down.weight"] = {dim, width, {}};
    };
    if (inter) {
        gated(start, inter);
        for (const char* part : {"gate", "up"}) all[start + part + ".bias"] = {inter, 0, {}};
        all[start + "down.bias"] = {dim, 0, {}};
        return;
    }
    const Experts& experts = *config.experts;
    const int64_t E = experts.n_routed, F = experts.inter_dim;
    all[start + "router.weight"] = {E, dim, {}};
    if (experts.has_bias) all[start + "router.expert_bias"] = {E, 0, {}};
    for (const char* part : {"gate", "up"}) all[start + "experts." + part] = {E * F, dim, {}};
    all[start + "experts.down"] = {E * dim, F, {}};
    if (experts.shared_dim) gated(start + "shared.", experts.shared_dim);
}

// All that the model has, by name, with every bias that one may have.
Kind make_kind(const std::string& name, const Config& config) {
    const int64_t dim = config.dim;
    Weights all{{"embed.weight", {V, dim, {}}}, {"head.weight", {V, dim, {}}}, {"norm.weight", {dim, 0, {}}}};
    for (int64_t i = 0; i < config.n_blocks(); i++) {
        const int64_t k = i - config.n_layers();
        const std::string module = "mtp." + std::to_string(k) + ".";
        const std::string start = k < 0 ? "layers." + std::to_string(i) + "." : module + "block.";
        if (k >= 0) {
            all[module + "proj.weight"] = {dim, 2 * dim, {}};
            for (const char* norm : {"embed_norm", "hidden_norm", "norm"})
                all[module + norm + ".weight"] = {dim, 0, {}};
        }
        for (const char* norm : {"attn_norm.weight", "mlp_norm.weight"}) all[start + norm] = {dim, 0, {}};
        if (config.post_norms)
            for (const char* norm : {"attn_post_norm.weight", "mlp_post_norm.weight"}) all[start + norm] = {dim, 0, {}};
        add_attention(config, start + "attn.", all);
        add_feed_forward(config, config.layers[i].inter_dim, start + "mlp.", all);
    }
    Random random(11);
    for (auto& [weight_name, weight] : all) {
        weight.values = random.normals(weight.n_rows * std::max<int64_t>(1, weight.n_columns));
        const bool norm = weight_name.find("norm") != std::string::npos;
        for (float& x : weight.values) x = (norm ? 1.0f : 0.0f) + 0.2f * x;
    }
    return {name, config, all};
}

const std::vector<Kind>& kinds() {
    static const std::vector<Kind> all{make_kind("plain", plain()), make_kind("windowed", windowed()),
                                       make_kind("latent", latent()), make_kind("bare", bare())};
    return all;
}

// All in 8 bits, or in every coding that there is in turn.
void give_weights(Model& model, const Kind& kind, bool mixed) {
    constexpr Coding TURNS[] = {Coding::Q8, Coding::Q4_1, Coding::BF16};
    int turn = 0;
    for (const auto& [name, weight] : kind.weights) {
        const auto& [n_rows, n_columns, values] = weight;
        if (mixed && n_columns && n_columns % HALF == 0)
            model.set_blocks(name, *block_format("Q4_0"), q4_0(values).data(), n_rows, n_columns / 32 * 18);
        else
            model.set(name, values.data(), n_rows, n_columns, mixed && n_columns ? TURNS[turn++ % 3] : Coding::Q8);
    }
}

Model tiny_model(const Kind& kind, const Kernels& k, int n_threads, bool eight_bit_cache = false) {
    return Model(kind.config, N_PAGES, PAGE_SIZE, n_threads, k.name, eight_bit_cache);
}

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

    // Of module 0 behind rows of the decoder.
    std::vector<float> predict(Model& model, const float* before, bool logits = true) const {
        const int64_t N = ids_.size();
        model.predict(0, {N, ids_.data(), positions_.data(), tables_.data()}, before, logit_rows_.data(),
                      logits ? N : 0);
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

// A module alone and in batches; where it gives no logits, the decoder's stay.
void check_module(Model& model, const std::string& what) {
    const int64_t dim = model.config().dim;
    const std::vector<float> said = Step().take(LONG, 0, 17).run(model);
    std::vector<float> before(17 * dim, 0.0f);
    std::copy_n(model.hidden(), 16 * dim, before.begin() + dim);
    expect(Step().take(LONG, 0, 17).predict(model, before.data(), false) == said, what + ": logits stay");
    const std::vector<float> alone = Step().take(LONG, 0, 17).predict(model, before.data());
    const std::vector<float> made(model.hidden(), model.hidden() + 17 * dim);
    model.reset();
    std::vector<float> found = Step().take(LONG, 0, 9).predict(model, before.data());
    append(found, Step().take(LONG, 9, 17).predict(model, before.data() + 9 * dim));
    expect(found == alone && alone != said, what + ": a module at once and in two parts gives the same logits");
    expect(std::equal(made.begin() + 9 * dim, made.end(), model.hidden()), what + ": and the same hidden states");
}

// A prompt that is long enough for the plain form, and in parts that are absorbed. Where two experts are as good, a row
// may go to the other one: most must not.
void check_prompt(Model& one, Model& many, const std::string& what) {
    Sequence prompt;
    for (int64_t i = 0; i < 80; i++) prompt.ids.push_back(i * 37 % V);
    for (int64_t i = 0; i < N_PAGES; i++) prompt.table.push_back((i * 5 + 3) % N_PAGES);
    const std::vector<float> plain = Step().take(prompt, 0, 80).run(one);
    expect(Step().take(prompt, 0, 80).run(many) == plain, what + ": a prompt, by any number of threads");
    std::vector<float> absorbed = Step().take(prompt, 0, 40).run(one), gaps;
    append(absorbed, Step().take(prompt, 40, 80).run(one));
    float largest = 0.0f;
    for (const float x : absorbed) largest = std::max(largest, std::fabs(x));
    for (int64_t row = 0; row < 80; row++) {
        gaps.push_back(0.0f);
        for (int64_t i = row * V; i < (row + 1) * V; i++)
            gaps.back() = std::max(gaps.back(), std::fabs(plain[i] - absorbed[i]));
    }
    std::sort(gaps.begin(), gaps.end());
    expect(plain != absorbed && gaps[60] < LATENT_LOGITS * largest, what + ": both forms give the same numbers");
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
void check_blocks(const Kind& kind, const Kernels& k) {
    Model direct = tiny_model(kind, k, 1), from_file = tiny_model(kind, k, 1);
    give_weights(direct, kind, false);
    give_weights(from_file, kind, true);
    for (const auto& [name, weight] : kind.weights) {
        const auto& [n_rows, n_columns, values] = weight;
        const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
        if (n_columns == 0) continue;
        try {
            from_file.set_blocks(name, *block_format("F32"), bytes, n_rows, n_columns * 4);
        } catch (const std::invalid_argument&) {  // taken in fp32 alone
            from_file.set(name, values.data(), n_rows, n_columns, Coding::Q8);
        }
    }
    expect(Step().take(LONG, 0, 17).run(direct) == Step().take(LONG, 0, 17).run(from_file),
           std::string(k.name) + ", " + kind.name + ": blocks of floats are the floats");
}

void check_bad_weights(const Kind& kind, const Kernels& k) {
    const int64_t dim = kind.config.dim;
    Model model = tiny_model(kind, k, 1);
    give_weights(model, kind, false);
    const std::vector<float> huge(dim, 3e38f);
    for (const auto& [name, weight] : kind.weights) {
        std::vector<float> broken = weight.values;
        broken.back() = INFINITY;
        for (const Coding coding : {Coding::Q8, Coding::Q4_1, Coding::BF16}) try {
                model.set(name, broken.data(), weight.n_rows, weight.n_columns, coding);
                expect(false, std::string(k.name) + ": infinite numbers are taken for " + name);
            } catch (const std::overflow_error&) {
            }
        try {
            model.set(name, broken.data(), weight.n_rows + 1, weight.n_columns, Coding::Q8);
            expect(false, std::string(k.name) + ": another shape is taken for " + name);
        } catch (const std::invalid_argument&) {
        }
    }
    give_weights(model, kind, false);
    model.set("norm.weight", huge.data(), dim, 0, Coding::Q8);
    Step().take(LONG, 0, 17).run(model);
    const std::vector<Drawn> drawn = model.sample({16}, {{1.0f, 1.0f, 0.0f, 0, 0.5}});
    expect(drawn[0].id == -1, std::string(k.name) + ": logits that are not finite are drawn from");
}

// Pages in which numbers were lost give those who get them next nothing of it; an odd length ends within a pair.
void check_poison(const Kind& kind, const Kernels& k, bool eight_bit_cache) {
    Model model = tiny_model(kind, k, 1, eight_bit_cache);
    give_weights(model, kind, false);
    const std::vector<float> clean = Step().take(SHORT, 0, 5).run(model), huge(kind.config.dim, 3e38f);
    model.set("layers.0.attn_norm.weight", huge.data(), kind.config.dim, 0, Coding::Q8);
    const std::vector<float> lost = Step().take(SHORT, 0, 6).run(model);
    expect(std::none_of(lost.begin(), lost.end(), [](float x) { return std::isfinite(x); }), "numbers are lost");
    give_weights(model, kind, false);
    expect(Step().take(SHORT, 0, 5).run(model) == clean,
           std::string(k.name) + ", " + kind.name + ": a page of NaN is used again");
}

// A place of a token's choice by the formula: group by group, then the best of what is left.
void check_routes() {
    const float logits[] = {2.2f, -9.0f, 0.0f, 0.4f, -1.0f, 1.2f}, bias[] = {0.0f, 0.0f, 0.0f, 0.0f, 0.5f, 0.0f};
    // Sigmoids .900 .000 | .500 .599 | .269 .769; with the bias the last group is best, then the second.
    const Experts grouped{6, 3, 1, 0, 3, 2, true, true, true, true, 2.5};
    Choice choices[6];
    route(grouped, logits, bias, choices);
    const double scores[] = {0.2689414, 0.7685248, 0.5986877}, sum = 0.2689414 + 0.7685248 + 0.5986877;
    const int64_t wanted[] = {4, 5, 3};
    std::swap(choices[0], choices[choices[0].expert == 4 ? 0 : 1]);  // .7689 and .7685 are close
    for (int i = 0; i < 3; i++) {
        expect(choices[i].expert == wanted[i], "routes: the experts of the best groups");
        expect(std::fabs(choices[i].weight - 2.5 * scores[i] / sum) < 1e-5, "routes: shares are without the bias");
    }
    // By its best alone, the first group is best.
    const Experts largest{6, 1, 1, 0, 3, 1, false, false, false, false, 1.0};
    double total = 0.0;
    for (const float x : logits) total += std::exp(static_cast<double>(x));
    route(largest, logits, nullptr, choices);
    expect(choices[0].expert == 0, "routes: the best of the best group");
    expect(std::fabs(choices[0].weight - std::exp(2.2) / total) < 1e-6, "routes: a share of the softmax");
    const float lost[] = {NOT_A_NUMBER, NOT_A_NUMBER, NOT_A_NUMBER, NOT_A_NUMBER, NOT_A_NUMBER, NOT_A_NUMBER};
    route(grouped, lost, bias, choices);
    for (int i = 0; i < 3; i++) expect(choices[i].expert >= 0 && choices[i].expert < 6, "routes: of lost numbers");
}

void check_ropes() {
    Rope rope{turns(6, 100.0), 1.5};
    float cos[3], sin[3], room[6];
    rope_row(rope, 7, cos, sin);
    expect(std::fabs(cos[1] - 1.5 * std::cos(7 * std::pow(100.0, -1.0 / 3))) < 1e-6, "ropes: an angle and the gain");
    rope.ntk_factor = 2.0;
    rope.ntk_length = 4.0;
    rope_row(rope, 7, cos, sin);  // the eighth token: the base is (2 * 8 / 4 - 1)^(6 / 4) times as large
    const double base = 100.0 * std::pow(3.0, 1.5);
    expect(std::fabs(sin[2] - 1.5 * std::sin(7 * std::pow(base, -2.0 / 3))) < 1e-6, "ropes: beyond their length");
    rope_row(rope, 3, cos, sin);
    expect(std::fabs(sin[2] - 1.5 * std::sin(3 * std::pow(100.0, -2.0 / 3))) < 1e-6, "ropes: within their length");
    const float quarter[] = {0, 0, 0}, one[] = {1, 1, 1};
    float halves[] = {1, 2, 3, 4, 5, 6}, pairs[] = {1, 4, 2, 5, 3, 6};
    rotate(halves, quarter, one, 6, false, room);
    rotate(pairs, quarter, one, 6, true, room);
    const float wanted[] = {-4, -5, -6, 1, 2, 3};
    expect(std::equal(halves, halves + 6, wanted), "ropes: halves turn together");
    expect(std::equal(pairs, pairs + 6, wanted), "ropes: neighbours turn together and come out as halves");
}

// `scalar`: the reference's logits, taken from the first table.
void check_runs(const Kind& kind, const Kernels& k, bool mixed, bool eight_bit_cache, std::vector<float>& scalar) {
    const std::string what = std::string(k.name) + ", " + kind.name + (mixed ? ", mixed codings" : "") +
                             (eight_bit_cache ? ", cache in 8 bits" : "");
    Model one = tiny_model(kind, k, 1, eight_bit_cache), many = tiny_model(kind, k, 3, eight_bit_cache);
    give_weights(one, kind, mixed);
    give_weights(many, kind, mixed);
    const std::vector<float> logits = Step().take(LONG, 0, 17).run(one);
    if (scalar.empty()) scalar = logits;
    expect_close(logits.data(), scalar.data(), logits.size(), kind.config.latent ? LATENT_LOGITS : LOGITS,
                 what + ": logits");
    expect(logits == Step().take(LONG, 0, 17).run(many), what + ": the number of threads changes nothing");
    // Threads that wait for one another are slow where processors are few.
    check_batches(kind.name == "plain" ? many : one, what);
    if (kind.name == "plain") check_draws(many, what);
    if (kind.config.n_modules) check_module(one, what);
    if (kind.config.latent && !mixed) check_prompt(one, many, what);
}

}  // namespace

void check_model() {
    check_routes();
    check_ropes();
    for (const Kind& kind : kinds()) {
        std::vector<float> scalar[2], scalar_of_codes;
        for (const Kernels* k : tables()) {
            const bool whole = kind.name == "plain" || k == tables().back();  // an emulated processor is slow
            for (const bool mixed : {false, true})
                if (mixed || whole) check_runs(kind, *k, mixed, false, scalar[mixed]);
            if (kind.name == "plain" && (k == tables().front() || k == tables().back()))
                check_runs(kind, *k, false, true, scalar_of_codes);
            if (whole) check_blocks(kind, *k);
            for (const bool eight_bit_cache : {false, true})
                if (whole && !(eight_bit_cache && kind.config.latent)) check_poison(kind, *k, eight_bit_cache);
        }
        check_bad_weights(kind, *tables().back());
    }
}

}  // namespace check
