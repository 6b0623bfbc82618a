// Attention over a tree of tokens and its gradients, a block of queries at a time, against the plain formula in fp64.

#include <cmath>

#include "check.h"

namespace check {
namespace {

using namespace smallpress;

constexpr double GRADIENT = 2e-5;  // relative to the largest: sums of products, most of them of both signs

// Queries of one segment behind two others; keys and values of a single head, tokens of all parts one after another.
struct Case {
    int64_t lengths[3], n_parts, n_rows, seen, group, D, W;

    int64_t n_tokens() const { return lengths[0] + lengths[1] + lengths[2]; }
    int64_t n_seen(int64_t row) const { return n_tokens() - lengths[n_parts - 1] + seen + row; }
};

struct Gradients {
    std::vector<double> out, lse, q, k, v;
};

Gradients plain(const Case& c, float scale, const float* q, const float* k, const float* v, const float* g) {
    const int64_t S = c.n_tokens(), X = c.n_rows * c.group;
    Gradients found{std::vector<double>(X * c.W), std::vector<double>(X), std::vector<double>(X * c.D),
                    std::vector<double>(S * c.D), std::vector<double>(S * c.W)};
    for (int64_t x = 0; x < X; x++) {
        const int64_t n = c.n_seen(x / c.group);
        std::vector<double> odds(n), slopes(n);
        double total = 0.0, mean = 0.0;
        for (int64_t s = 0; s < n; s++) {
            double score = 0.0;
            for (int64_t d = 0; d < c.D; d++) score += double(scale) * q[x * c.D + d] * k[s * c.D + d];
            total += odds[s] = std::exp(score);
        }
        found.lse[x] = std::log(total);
        for (int64_t s = 0; s < n; s++) {
            odds[s] /= total;
            for (int64_t d = 0; d < c.W; d++) {
                found.out[x * c.W + d] += odds[s] * v[s * c.W + d];
                found.v[s * c.W + d] += odds[s] * g[x * c.W + d];
                slopes[s] += double(g[x * c.W + d]) * v[s * c.W + d];
            }
            mean += odds[s] * slopes[s];
        }
        for (int64_t s = 0; s < n; s++)
            for (int64_t d = 0; d < c.D; d++) {
                const double slope = scale * odds[s] * (slopes[s] - mean);
                found.q[x * c.D + d] += slope * k[s * c.D + d];
                found.k[s * c.D + d] += slope * q[x * c.D + d];
            }
    }
    return found;
}

void check_case(const Kernels& kernels, const Case& c) {
    const Training& t = *kernels.training;
    const int64_t S = c.n_tokens(), X = c.n_rows * c.group;
    Random random(1);
    const auto q = random.normals(X * c.D), k = random.normals(S * c.D), v = random.normals(S * c.W),
               g = random.normals(X * c.W);
    std::vector<float> out(X * c.W), lse(X), dq(X * c.D), dk(S * c.D), dv(S * c.W), key_columns, value_columns;
    TreeBlock b{};
    int64_t columns = 0, first = 0;
    for (int64_t p = 0; p < c.n_parts; p++) columns += tree_width(c.lengths[p]);
    std::vector<float> room(tree_room(c.n_rows, c.group, columns, c.D > c.W ? c.D : c.W));
    key_columns.resize(columns * c.D), value_columns.resize(columns * c.W);
    columns = 0;
    for (int64_t p = 0; p < c.n_parts; p++) {
        float *as_keys = &key_columns[columns * c.D], *as_values = &value_columns[columns * c.W];
        t.tree_columns(&k[first * c.D], c.lengths[p], c.D, c.D, as_keys);
        t.tree_columns(&v[first * c.W], c.lengths[p], c.W, c.W, as_values);
        b.parts[p] = {c.lengths[p], &k[first * c.D],  &v[first * c.W],  as_keys,
                      as_values,    &dk[first * c.D], &dv[first * c.W], c.D,
                      c.W};
        first += c.lengths[p], columns += tree_width(c.lengths[p]);
    }
    b.n_parts = c.n_parts, b.n_rows = c.n_rows, b.group = c.group, b.key_dim = c.D, b.value_dim = c.W, b.seen = c.seen;
    b.scale = 0.2f, b.q = q.data(), b.q_stride = c.group * c.D, b.key_stride = c.D, b.value_stride = c.W;
    b.out = out.data(), b.out_stride = c.group * c.W, b.lse = lse.data(), b.lse_stride = c.group;
    b.out_gradient = g.data(), b.q_gradient = dq.data(), b.room = room.data();
    t.tree_forward(b);
    t.tree_backward(b);
    const Gradients wanted = plain(c, b.scale, q.data(), k.data(), v.data(), g.data());
    expect_close(out.data(), wanted.out.data(), X * c.W, 1e-5, at(kernels, "tree attention", S));
    expect_close(lse.data(), wanted.lse.data(), X, 1e-5, at(kernels, "tree attention's sums", S));
    expect_close(dq.data(), wanted.q.data(), X * c.D, GRADIENT * std::fmax(1.0, peak(dq.data(), X * c.D)),
                 at(kernels, "dq", S));
    expect_close(dk.data(), wanted.k.data(), S * c.D, GRADIENT * std::fmax(1.0, peak(dk.data(), S * c.D)),
                 at(kernels, "dk", S));
    expect_close(dv.data(), wanted.v.data(), S * c.W, GRADIENT * std::fmax(1.0, peak(dv.data(), S * c.W)),
                 at(kernels, "dv", S));
}

}  // namespace

void check_tree(const Kernels& k) {
    constexpr Case CASES[] = {
        {{1, 0, 0}, 1, 1, 1, 1, 16, 16},  {{5, 0, 0}, 1, 5, 1, 2, 32, 16},     {{16, 17, 0}, 2, 9, 3, 3, 64, 64},
        {{33, 0, 7}, 3, 7, 1, 4, 48, 32}, {{3, 40, 21}, 3, 13, 9, 1, 64, 128}, {{90, 70, 33}, 3, 33, 1, 3, 64, 64},
    };
    for (const Case& one : CASES) check_case(k, one);
}

}  // namespace check
