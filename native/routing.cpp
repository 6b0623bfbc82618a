#include "routing.h"

#include <algorithm>
#include <cmath>

namespace smallpress {
namespace {

constexpr double LEAST_SUM = 1e-20;  // of weights that are divided by their sum; sigmoids may all be nearly zero

std::vector<double> scores(const Experts& experts, const float* logits) {
    std::vector<double> found(logits, logits + experts.n_routed);
    if (experts.sigmoid) {
        for (double& x : found) x = 1.0 / (1.0 + std::exp(-x));
        return found;
    }
    const double best = *std::max_element(found.begin(), found.end());
    double total = 0.0;
    for (double& x : found) total += x = std::exp(x - best);
    for (double& x : found) x /= total;
    return found;
}

// The best, which then is none any more.
int64_t take_best(std::vector<double>& worth) {
    const auto best = std::max_element(worth.begin(), worth.end());
    *best = -INFINITY;
    return best - worth.begin();
}

// Leaves open the experts of the best groups.
void close_groups(const Experts& experts, std::vector<double>& worth) {
    const int64_t each = experts.n_routed / experts.n_groups;
    std::vector<double> groups;
    for (auto first = worth.begin(); first != worth.end(); first += each) {
        std::vector<double> members(first, first + each);
        const int64_t best = take_best(members);
        groups.push_back(first[best]);
        if (experts.best_two && each > 1) groups.back() += first[take_best(members)];
    }
    for (int64_t i = 0; i < experts.n_active_groups; i++) take_best(groups);
    for (int64_t e = 0; e < experts.n_routed; e++)
        if (groups[e / each] != -INFINITY) worth[e] = -INFINITY;
}

}  // namespace

void route(const Experts& experts, const float* logits, const float* bias, Choice* choices) {
    const std::vector<double> scored = scores(experts, logits);
    std::vector<double> worth = scored;
    for (size_t i = 0; bias && i < worth.size(); i++) worth[i] += bias[i];
    if (experts.n_active_groups < experts.n_groups) close_groups(experts, worth);
    double total = LEAST_SUM;
    for (int64_t i = 0; i < experts.n_active; i++) {
        choices[i].expert = take_best(worth);
        total += scored[choices[i].expert];
    }
    for (int64_t i = 0; i < experts.n_active; i++) {
        const double share = scored[choices[i].expert] / (experts.normalize ? total : 1.0);
        choices[i].weight = static_cast<float>(share * experts.scale);
    }
}

}  // namespace smallpress
