// Drawing tokens: the same definition as engine/sampler.py, which says why.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>

#include "model.h"

namespace smallpress {
namespace {

constexpr int64_t FIRST_SORTED = 1024;  // how many of the likeliest ids top-p looks at before it looks at all
constexpr int64_t BLOCK = 32;

// A bound below which no weight is among the k largest: as many blocks hold one that is not smaller. 0 is no bound.
float below_largest(const float* weights, int64_t V, int64_t k) {
    if (k * BLOCK > V) return 0.0f;
    std::vector<float> best((V + BLOCK - 1) / BLOCK);
    for (int64_t begin = 0; begin < V; begin += BLOCK)
        best[begin / BLOCK] = *std::max_element(weights + begin, weights + std::min(begin + BLOCK, V));
    std::nth_element(best.begin(), best.begin() + k - 1, best.end(), std::greater<>());
    return best[k - 1];
}

bool by_rank(const Draw& draw, int64_t V) { return draw.top_k > 0 && draw.top_k < V; }

// Puts the weights that top-k and top-p may keep in front; how many there are. What top-p leaves out adds up to less
// than 1 - top_p of the total, which V weights below the bound do.
int64_t choose(const float* weights, int64_t V, double total, const Draw& draw, float* chosen) {
    const float bound = by_rank(draw, V) ? below_largest(weights, V, draw.top_k)
                                         : static_cast<float>(0.99 * (1.0 - draw.top_p) * total / V);
    int64_t n = 0;
    for (int64_t i = 0; i < V; i++) {
        chosen[n] = weights[i];
        n += weights[i] >= bound;
    }
    return n;
}

// The smallest weight that top-k (0: all) and top-p keep, of the n that may be kept; `total` is the sum of all.
float threshold(float* weights, int64_t n, int64_t k, double total, const Draw& draw) {
    float kept = draw.min_p;
    int64_t n_sorted = std::min(n, std::max(FIRST_SORTED, k));
    for (;; n_sorted = n) {
        std::partial_sort(weights, weights + n_sorted, weights + n, std::greater<>());
        if (k > 0) {
            kept = std::max(kept, weights[k - 1]);
            total = 0.0;
            for (int64_t i = 0; i < k; i++) total += weights[i];
        }
        if (draw.top_p >= 1.0f) return kept;
        double running = 0.0;
        for (int64_t i = 0; i < n_sorted; i++)
            if ((running += weights[i]) >= draw.top_p * total) return std::max(kept, weights[i]);
        if (n_sorted == n) return std::max(kept, weights[n - 1]);
    }
}

Drawn draw_one(const Kernels& k, const float* logits, int64_t V, const Draw& draw, Buffer<float>& scratch) {
    const float cool = draw.temperature > 0.0f ? 1.0f / draw.temperature : 1.0f;
    const float best = k.largest(logits, V);
    if (!std::isfinite(best)) return {-1, 0.0};
    scratch.reserve(2 * V);
    float* weights = scratch.get();
    std::vector<double> sums((V + SUMMED - 1) / SUMMED);
    const double all = k.weigh(logits, V, best, cool, weights, sums.data());
    auto drawn = [&](int64_t id) { return Drawn{id, (static_cast<double>(logits[id]) - best) * cool - std::log(all)}; };
    if (draw.temperature <= 0.0f) return drawn(std::find(logits, logits + V, best) - logits);
    double total = all;
    const bool filtered = draw.top_k > 0 || draw.top_p < 1.0f || draw.min_p > 0.0f;
    if (filtered) {
        float kept = draw.min_p;
        if (draw.top_k > 0 || draw.top_p < 1.0f) {
            float* chosen = weights + V;
            const int64_t n = choose(weights, V, all, draw, chosen);
            kept = threshold(chosen, n, by_rank(draw, V) ? draw.top_k : 0, all, draw);
        }
        total = 0.0;
        for (int64_t begin = 0; begin < V; begin += SUMMED) {
            double part = 0.0;
            for (int64_t id = begin; id < std::min(begin + SUMMED, V); id++) {
                if (weights[id] < kept) weights[id] = 0.0f;
                part += weights[id];
            }
            total += sums[begin / SUMMED] = part;
        }
    }
    // The first id at which the running sum exceeds the target.
    const double target = draw.uniform * total;
    double running = 0.0;
    int64_t end = V;
    for (int64_t begin = 0; begin < V; begin += SUMMED) {
        const double part = sums[begin / SUMMED];
        if (running + part > target) {
            end = std::min(begin + SUMMED, V);
            for (int64_t id = begin; id < end; id++)
                if (weights[id] > 0.0f && (running += weights[id]) > target) return drawn(id);
            break;
        }
        running += part;
    }
    // Rounding has left the target at the very end: the last id that weighs anything.
    while (weights[end - 1] == 0.0f) end--;
    return drawn(end - 1);
}

}  // namespace

std::vector<Drawn> Model::sample(const std::vector<int64_t>& row_of, const std::vector<Draw>& draws) {
    const int64_t V = config_.vocab_size, n = draws.size();
    std::vector<Drawn> result(n);
    std::atomic<int64_t> next{0};
    pool_.run([&](int thread) {
        for (int64_t i; (i = next.fetch_add(1)) < n;)
            result[i] = draw_one(k_, logits_.get() + row_of[i] * V, V, draws[i], scratch_[thread]);
    });
    return result;
}

}  // namespace smallpress
