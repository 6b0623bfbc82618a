// Sparse experts: rows are laid out expert by expert, so that each expert in use is read once for all its rows and no
// other is read at all.

#include <algorithm>

#include "model.h"

namespace smallpress {
namespace {

// What a panel costs that comes from memory, in rows that are multiplied by it.
constexpr int64_t READING = 8;

}  // namespace

// Threads share the panels of all jobs by what they cost.
void Model::run(const std::vector<Job>& jobs) {
    int64_t whole = 0;
    for (const Job& job : jobs) whole += job.weight.n_panels() * (READING + job.M);
    pool_.split(whole, 1, [&](int, int64_t begin, int64_t end) {
        for (const Job& job : jobs) {
            const int64_t cost = READING + job.M, n_panels = job.weight.n_panels();
            // A panel is whose its first unit is.
            auto panel = [&](int64_t unit) { return std::clamp<int64_t>((unit + cost - 1) / cost, 0, n_panels); };
            const int64_t first = begin > 0 ? panel(begin) : 0, last = end > 0 ? panel(end) : 0;
            if (first < last) k_.product(job.x, job.M, job.weight, first, last, job.out, job.stride, Store::SET);
            begin -= n_panels * cost;
            end -= n_panels * cost;
        }
    });
}

// Adds what the experts of each row of `normed_` make of it.
void Model::experts(const Layer& layer, int64_t index, int64_t N) {
    const Experts& kind = *config_.experts;
    const int64_t dim = config_.dim, E = kind.n_routed, A = kind.n_active, F = kind.inter_dim;
    choices_.resize(N * A);
    pool_.split(N, 1, [&](int thread, int64_t begin, int64_t end) {
        scratch_[thread].reserve(E);
        for (int64_t n = begin; n < end; n++) {
            k_.dots(normed_.get() + n * dim, layer.router.get(), E, dim, scratch_[thread].get());
            route(kind, scratch_[thread].get(), layer.expert_bias.size() ? layer.expert_bias.get() : nullptr,
                  &choices_[n * A]);
        }
    });
    // Each expert's rows begin with a tile.
    std::vector<int64_t> counts(E, 0), starts(E, 0), slots(N * A);
    for (const Choice& choice : choices_) counts[choice.expert]++;
    int64_t n_slots = 0;
    for (int64_t e = 0; e < E; e++) {
        starts[e] = n_slots;
        n_slots += round_up(counts[e], Activations::TILE);
    }
    std::vector<int64_t> next = starts;
    for (int64_t i = 0; i < N * A; i++) slots[i] = next[choices_[i].expert]++;

    const auto gate = gate_of(index);
    const int64_t width = gate_up_width(F), panels_in = up_row(F) / PANEL, panels_out = (dim + PANEL - 1) / PANEL;
    expert_wide_.reserve(n_slots * width);
    expert_out_.reserve(n_slots * dim);
    auto for_each_expert = [&](auto add) {
        std::vector<Job> jobs;
        for (int64_t e = 0; e < E; e++)
            if (counts[e]) add(jobs, e, starts[e], counts[e]);
        run(jobs);
    };
    gathered_.reserve(n_slots, dim);
    pool_.split(N * A, 1, [&](int, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) take(normed_.get() + i / A * dim, dim, gathered_, slots[i]);
    });
    for_each_expert([&](std::vector<Job>& jobs, int64_t e, int64_t row, int64_t M) {
        float* to = expert_wide_.get() + row * width;
        jobs.push_back({gathered_.from(row), M, layer.experts_gate.from(e * panels_in, F), to, width});
        jobs.push_back({gathered_.from(row), M, layer.experts_up.from(e * panels_in, F), to + up_row(F), width});
    });
    gathered_.reserve(n_slots, F);
    pool_.split(N * A, 1, [&](int, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
            float* row = expert_wide_.get() + slots[i] * width;
            gate(row, row + up_row(F), F, row);
            take(row, F, gathered_, slots[i]);
        }
    });
    for_each_expert([&](std::vector<Job>& jobs, int64_t e, int64_t row, int64_t M) {
        jobs.push_back(
            {gathered_.from(row), M, layer.experts_down.from(e * panels_out, dim), expert_out_.get() + row * dim, dim});
    });
    float* out = branch(layer.mlp_post_norm);
    pool_.split(N, 1, [&](int, int64_t begin, int64_t end) {
        for (int64_t i = begin * A; i < end * A; i++) {
            const float *from = expert_out_.get() + slots[i] * dim, weight = choices_[i].weight;
            float* to = out + i / A * dim;
            for (int64_t d = 0; d < dim; d++) to[d] += weight * from[d];
        }
    });
}

}  // namespace smallpress
