// Attention over a tree of tokens and its gradients; a part of kernels.inl. Scores of a block are held, whatever their
// length: blocks are made so small that they stay in the second cache.

#include "tree.h"

namespace {

#if defined(__AVX512F__)
constexpr int TREE_ROWS = 6, TREE_COLUMNS = 4;  // registers of sums
#else
constexpr int TREE_ROWS = 4, TREE_COLUMNS = 1;
#endif

// A matrix read number by number, and one read sixteen columns at a time.
struct Spread {
    const float* at;
    int64_t row, step;
};
struct Lined {
    const float* at;
    int64_t step, columns;
};

// out[r, c] (+)= sum over n steps of a[r, step] b[step, c], for R rows and C registers of columns.
template <int R, int C>
inline void tree_tile(Spread a, Lined b, int64_t n, float* out, int64_t out_row, bool adds) {
    F16 sums[R * C];
    for (int i = 0; i < R * C; i++) sums[i] = set1(0.0f);
    for (int64_t step = 0; step < n; step++) {
        F16 line[C];
        for (int c = 0; c < C; c++) line[c] = load(b.at + step * b.step + c * b.columns);
        for (int r = 0; r < R; r++) {
            const F16 x = set1(a.at[r * a.row + step * a.step]);
            for (int c = 0; c < C; c++) sums[r * C + c] = fma(x, line[c], sums[r * C + c]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) {
            float* to = out + r * out_row + c * 16;
            store(to, adds ? add(load(to), sums[r * C + c]) : sums[r * C + c]);
        }
}

template <int R, int C>
inline void tree_rows(int64_t n_rows, Spread a, Lined b, int64_t n, float* out, int64_t out_row, bool adds) {
    for (; n_rows >= R; n_rows -= R, a.at += R * a.row, out += R * out_row)
        tree_tile<R, C>(a, b, n, out, out_row, adds);
    if constexpr (R > 1) {
        if (n_rows) tree_rows<R / 2, C>(n_rows, a, b, n, out, out_row, adds);
    }
}

template <int C>
inline void tree_columns_of(int64_t n_lines, int64_t n_rows, Spread a, Lined b, int64_t n, float* out, int64_t out_row,
                            bool adds) {
    for (; n_lines >= C; n_lines -= C, b.at += C * b.columns, out += C * 16)
        tree_rows<TREE_ROWS, C>(n_rows, a, b, n, out, out_row, adds);
    if constexpr (C > 1) {
        if (n_lines) tree_columns_of<C / 2>(n_lines, n_rows, a, b, n, out, out_row, adds);
    }
}

// The product of [n_rows, n] and [n, n_lines * 16].
inline void tree_product(int64_t n_rows, int64_t n_lines, int64_t n, Spread a, Lined b, float* out, int64_t out_row,
                         bool adds) {
    tree_columns_of<TREE_COLUMNS>(n_lines, n_rows, a, b, n, out, out_row, adds);
}

// What a block reads and writes in its room.
struct TreeWork {
    const TreeBlock& block;
    int64_t X, D, W, ends[TreeBlock::MOST_PARTS + 1];  // ends[p]: where part p's columns begin
    float *q, *scores, *slopes, *mixed, *gradient, *deltas;

    explicit TreeWork(const TreeBlock& b) : block(b), X(b.n_rows * b.group), D(b.key_dim), W(b.value_dim) {
        ends[0] = 0;
        for (int p = 0; p < b.n_parts; p++) ends[p + 1] = ends[p] + tree_width(length(p));
        const int64_t widest = D > W ? D : W;
        q = b.room, scores = q + X * widest, slopes = scores + X * columns(), mixed = slopes + X * columns();
        gradient = mixed + X * widest, deltas = gradient + X * widest;
    }
    bool is_own(int p) const { return p == block.n_parts - 1; }
    int64_t length(int p) const { return is_own(p) ? block.seen + block.n_rows - 1 : block.parts[p].length; }
    int64_t columns() const { return ends[block.n_parts]; }

    // Rows of a query array [n_rows, group, width] into the room, times a factor.
    void gather(const float* from, int64_t stride, int64_t width, float factor, float* to) const {
        const F16 f = set1(factor);
        for (int64_t n = 0; n < block.n_rows; n++)
            for (int64_t i = 0; i < block.group * width; i += 16, to += 16)
                store(to, mul(load(from + n * stride + i), f));
    }

    // Scores of all columns; what a row does not see is -infinity.
    void score() const {
        for (int p = 0; p < block.n_parts; p++) {
            const Lined keys{block.parts[p].key_columns, 16, D * 16};
            tree_product(X, (ends[p + 1] - ends[p]) / 16, D, {q, D, 1}, keys, scores + ends[p], columns(), false);
        }
        for (int64_t x = 0; x < X; x++)
            for (int p = 0; p < block.n_parts; p++) {
                const int64_t n = is_own(p) ? block.seen + x / block.group : length(p);
                float* row = scores + x * columns();
                for (int64_t i = ends[p] + n; i < ends[p + 1]; i++) row[i] = -INFINITY;
            }
    }
};

// Tokens [0, length) of `x`, `stride` apart, as columns: [length / 16, width, 16], zeros after the last.
void tree_columns(const float* x, int64_t length, int64_t stride, int64_t width, float* to) {
    for (int64_t begin = 0; begin < length; begin += 16) {
        const int64_t n = least(16, length - begin);
        float* panel = to + begin * width;
        for (int64_t d = 0; d < width; d++)
            for (int64_t i = 0; i < 16; i++) panel[d * 16 + i] = i < n ? x[(begin + i) * stride + d] : 0.0f;
    }
}

void tree_forward(const TreeBlock& block) {
    const TreeWork work(block);
    const int64_t S = work.columns(), W = work.W;
    work.gather(block.q, block.q_stride, work.D, block.scale, work.q);
    work.score();
    float* inverses = work.deltas;
    for (int64_t x = 0; x < work.X; x++) {
        float* row = work.scores + x * S;
        F16 peak = set1(-INFINITY), total = set1(0.0f);
        for (int64_t i = 0; i < S; i += 16) peak = max(peak, load(row + i));
        const float highest = largest_of(peak);
        for (int64_t i = 0; i < S; i += 16) {
            const F16 odds = exp16(sub(load(row + i), set1(highest)));
            store(row + i, odds);
            total = add(total, odds);
        }
        const float all = sum(total);
        inverses[x] = 1.0f / all;
        block.lse[x / block.group * block.lse_stride + x % block.group] = highest + logf(all);
    }
    for (int p = 0; p < block.n_parts; p++)
        tree_product(work.X, W / 16, work.length(p), {work.scores + work.ends[p], S, 1},
                     {block.parts[p].values, block.value_stride, 16}, work.mixed, W, p > 0);
    for (int64_t x = 0; x < work.X; x++) {
        float* out = block.out + x / block.group * block.out_stride + x % block.group * W;
        const F16 inverse = set1(inverses[x]);
        for (int64_t i = 0; i < W; i += 16) store(out + i, mul(load(work.mixed + x * W + i), inverse));
    }
}

// With p the odds and g the gradient of the output: dv = p^T g, dp = g v^T, ds = p (dp - p . dp), and p . dp = out . g.
void tree_backward(const TreeBlock& block) {
    const TreeWork work(block);
    const int64_t S = work.columns(), D = work.D, W = work.W, X = work.X;
    work.gather(block.q, block.q_stride, D, block.scale, work.q);
    work.gather(block.out_gradient, block.out_stride, W, 1.0f, work.gradient);
    work.gather(block.out, block.out_stride, W, 1.0f, work.mixed);
    work.score();
    for (int p = 0; p < block.n_parts; p++) {
        const Lined values{block.parts[p].value_columns, 16, W * 16};
        tree_product(X, (work.ends[p + 1] - work.ends[p]) / 16, W, {work.gradient, W, 1}, values,
                     work.slopes + work.ends[p], S, false);
    }
    for (int64_t x = 0; x < X; x++) {
        F16 delta = set1(0.0f);
        for (int64_t i = 0; i < W; i += 16)
            delta = fma(load(work.gradient + x * W + i), load(work.mixed + x * W + i), delta);
        const F16 mean = set1(sum(delta)), lse = set1(block.lse[x / block.group * block.lse_stride + x % block.group]);
        float *scores = work.scores + x * S, *slopes = work.slopes + x * S;
        for (int64_t i = 0; i < S; i += 16) {
            const F16 odds = exp16(sub(load(scores + i), lse));
            store(scores + i, odds);
            store(slopes + i, mul(odds, sub(load(slopes + i), mean)));
        }
    }
    for (int p = 0; p < block.n_parts; p++) {
        const TreeBlock::Part& part = block.parts[p];
        const float *odds = work.scores + work.ends[p], *slopes = work.slopes + work.ends[p];
        const int64_t length = work.length(p);
        tree_product(length, W / 16, X, {odds, 1, S}, {work.gradient, W, 16}, part.value_gradient,
                     part.value_gradient_stride, true);
        tree_product(length, D / 16, X, {slopes, 1, S}, {work.q, D, 16}, part.key_gradient, part.key_gradient_stride,
                     true);
    }
    for (int p = 0; p < block.n_parts; p++)  // over the outputs, which are not wanted any more
        tree_product(X, D / 16, work.length(p), {work.slopes + work.ends[p], S, 1},
                     {block.parts[p].keys, block.key_stride, 16}, work.mixed, D, p > 0);
    const F16 scale = set1(block.scale);
    for (int64_t x = 0; x < X; x++) {
        float* to = block.q_gradient + x / block.group * block.q_stride + x % block.group * D;
        for (int64_t i = 0; i < D; i += 16) store(to + i, mul(load(work.mixed + x * D + i), scale));
    }
}

}  // namespace
