// Attention over a tree of tokens, its blocks spread over the threads of a pool.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <vector>

#include "kernels.h"
#include "shared_pool.h"
#include "training.h"

namespace nb = nanobind;

namespace {

using namespace smallpress;
using Segments = nb::ndarray<const int64_t, nb::shape<-1, 4>, nb::c_contig, nb::device::cpu>;
using Heads = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Sums = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

constexpr int64_t MOST_SCORES = 64 * 1024;  // of a block, which needs as many again for their gradients
constexpr int64_t MOST_QUERIES = 96;        // of a block, under all heads of its group
constexpr int64_t MOST_SHARES = 16;         // of the gradient of what all see: its sum does not depend on the threads

void require(bool condition, const char* what) {
    if (!condition) throw std::invalid_argument(what);
}

// Tokens [begin, begin + length), which see the parent and its parents whole; -1: none. Segments of a unit stand side
// by side; the unit of what all others see is -1, and it stands first.
struct Segment {
    int64_t begin, length, parent, unit;
};

struct Tree {
    const Segment* segments;
    int64_t n_segments, n_tokens, H, K, D, W, group;
    std::vector<int64_t> columns_at;  // of a head: where a segment's tokens lie as columns
    int64_t n_columns = 0;

    Tree(const Segments& given, const Heads& q, const Heads& k, const Heads& v)
        : segments(reinterpret_cast<const Segment*>(given.data())),
          n_segments(given.shape(0)),
          n_tokens(q.shape(0)),
          H(q.shape(1)),
          K(k.shape(1)),
          D(q.shape(2)),
          W(v.shape(2)),
          group(K ? H / K : 0) {
        require(k.shape(0) == q.shape(0) && v.shape(0) == q.shape(0),
                "queries, keys and values are of the same tokens");
        require(K > 0 && H % K == 0 && v.shape(1) == static_cast<size_t>(K), "heads of keys and values differ");
        require(k.shape(2) == static_cast<size_t>(D) && D % 16 == 0 && W % 16 == 0 && D > 0 && W > 0,
                "a head has a multiple of 16 numbers");
        int64_t end = 0;
        for (int64_t s = 0; s < n_segments; s++) {
            const Segment& one = segments[s];
            require(one.begin == end && one.length >= 0 && one.parent >= -1 && one.parent < s,
                    "a segment is misplaced");
            require(one.unit >= -1 && (one.unit >= 0 || s == 0), "what all see stands first");
            require(one.parent < 0 || segments[one.parent].unit < 0 || segments[one.parent].unit == one.unit,
                    "a segment follows one of another unit");
            require(s == 0 || one.unit >= segments[s - 1].unit, "units stand side by side");
            end += one.length;
            columns_at.push_back(n_columns);
            n_columns += tree_width(one.length);
            int n_parts = 1;
            for (int64_t at = one.parent; at >= 0; at = segments[at].parent) n_parts++;
            require(n_parts <= TreeBlock::MOST_PARTS, "a segment has too many ancestors");
        }
        require(end == n_tokens, "segments hold all tokens");
    }
    // The ancestors of a segment, the oldest first, and itself; returns how many.
    int path(int64_t s, int64_t* to) const {
        int n = 0;
        for (int64_t at = s; at >= 0; at = segments[at].parent) to[n++] = at;
        std::reverse(to, to + n);
        return n;
    }
    // How many rows of a segment a block has.
    int64_t rows_at_once(int64_t s) const {
        int64_t path_to[TreeBlock::MOST_PARTS], columns = 0;
        for (int i = 0, n = path(s, path_to); i < n; i++) columns += tree_width(segments[path_to[i]].length);
        const int64_t most = std::min(MOST_QUERIES, MOST_SCORES / std::max<int64_t>(1, columns));
        return std::max<int64_t>(1, most / group);
    }
};

// One call's arrays; `gradient` and what follows are null where the pass is forward.
struct Pass {
    const Tree& tree;
    const Training& training;
    float scale;
    const float *q, *k, *v;
    float *out, *lse;
    const float* gradient;
    float *q_gradient, *k_gradient, *v_gradient;
    Buffer<float>&key_columns, &value_columns;

    void lay(SharedPool& pool) const {
        const int64_t n = tree.n_columns;
        key_columns.reserve(tree.K * n * tree.D);
        if (gradient) value_columns.reserve(tree.K * n * tree.W);
        pool.split(tree.K * tree.n_segments, 1, [&](int, int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; i++) {
                const int64_t head = i / tree.n_segments, s = i % tree.n_segments, at = tree.segments[s].begin;
                const int64_t first = head * n + tree.columns_at[s], length = tree.segments[s].length;
                training.tree_columns(k + (at * tree.K + head) * tree.D, length, tree.K * tree.D, tree.D,
                                      key_columns.get() + first * tree.D);
                if (gradient)
                    training.tree_columns(v + (at * tree.K + head) * tree.W, length, tree.K * tree.W, tree.W,
                                          value_columns.get() + first * tree.W);
            }
        });
    }

    // Rows [first, first + n) of a segment under one head. What all see adds to its gradient in `share`, where there
    // is one: [tokens, heads, D], and after them [tokens, heads, W].
    void block(int64_t s, int64_t first, int64_t n, int64_t head, float* share) const {
        const Segment& own = tree.segments[s];
        const int64_t D = tree.D, W = tree.W, K = tree.K, H = tree.H, row = own.begin + first;
        const int64_t query = row * H + head * tree.group;
        TreeBlock b{};
        b.n_rows = n, b.group = tree.group, b.key_dim = D, b.value_dim = W, b.seen = first + 1, b.scale = scale;
        b.q = q + query * D, b.q_stride = H * D, b.key_stride = K * D, b.value_stride = K * W;
        b.out = out + query * W, b.out_stride = H * W, b.lse = lse + query, b.lse_stride = H;
        if (gradient) b.out_gradient = gradient + query * W, b.q_gradient = q_gradient + query * D;
        int64_t path[TreeBlock::MOST_PARTS], columns = 0;
        b.n_parts = tree.path(s, path);
        for (int p = 0; p < b.n_parts; p++) {
            const Segment& segment = tree.segments[path[p]];
            const int64_t key = segment.begin * K + head, at = head * tree.n_columns + tree.columns_at[path[p]];
            TreeBlock::Part& part = b.parts[p];
            part.length = segment.length, part.keys = k + key * D, part.values = v + key * W;
            part.key_columns = key_columns.get() + at * D;
            columns += tree_width(segment.length);
            if (!gradient) continue;
            part.value_columns = value_columns.get() + at * W;
            const bool shared = share && segment.unit < 0;
            part.key_gradient = shared ? share + head * D : k_gradient + key * D;
            part.value_gradient = shared ? share + segment.length * K * D + head * W : v_gradient + key * W;
            part.key_gradient_stride = K * D, part.value_gradient_stride = K * W;
        }
        static thread_local Buffer<float> room;
        room.reserve(tree_room(n, tree.group, columns, std::max(D, W)));
        b.room = room.get();
        gradient ? training.tree_backward(b) : training.tree_forward(b);
    }

    // All of a segment's rows under one head.
    void blocks(int64_t s, int64_t head, float* share) const {
        const int64_t at_once = tree.rows_at_once(s), length = tree.segments[s].length;
        for (int64_t first = 0; first < length; first += at_once)
            block(s, first, std::min(at_once, length - first), head, share);
    }
};

// work(i) for all of [0, n), each by the thread that is free.
template <typename Work>
void in_turn(SharedPool& pool, int n_threads, int64_t n, Work work) {
    std::atomic<int64_t> next{0};
    pool.split(n_threads, 1, [&](int, int64_t, int64_t) {
        for (int64_t i; (i = next.fetch_add(1)) < n;) work(i);
    });
}

struct Columns {
    Buffer<float> keys, values;
};

Columns& columns_of_this_thread() {
    static thread_local Columns columns;  // kept: fresh memory costs more than what is done with it
    return columns;
}

void tree_attention(int n_threads, const Segments& segments, const Heads& q, const Heads& k, const Heads& v,
                    float scale, const Heads& out, const Sums& lse, const std::string& kernels_name) {
    const Tree tree(segments, q, k, v);
    require(out.size() == static_cast<size_t>(tree.n_tokens * tree.H * tree.W), "the output has another shape");
    require(lse.size() == static_cast<size_t>(tree.n_tokens * tree.H), "the sums have another shape");
    const Training& training = *kernels(kernels_name).training;
    SharedPool& pool = shared_pool(n_threads);
    nb::gil_scoped_release free;
    Columns& columns = columns_of_this_thread();
    const Pass pass{tree,       training, scale,   q.data(), k.data(), v.data(),     out.data(),
                    lse.data(), nullptr,  nullptr, nullptr,  nullptr,  columns.keys, columns.values};
    pass.lay(pool);
    in_turn(pool, n_threads, tree.n_segments * tree.K,
            [&](int64_t i) { pass.blocks(i / tree.K, i % tree.K, nullptr); });
}

void tree_attention_backward(int n_threads, const Segments& segments, const Heads& q, const Heads& k, const Heads& v,
                             float scale, const Heads& out, const Sums& lse, const Heads& gradient,
                             const Heads& q_gradient, const Heads& k_gradient, const Heads& v_gradient,
                             const std::string& kernels_name) {
    const Tree tree(segments, q, k, v);
    require(out.size() == gradient.size() && q.size() == q_gradient.size() && k.size() == k_gradient.size() &&
                v.size() == v_gradient.size() && lse.size() == static_cast<size_t>(tree.n_tokens * tree.H) &&
                out.size() == static_cast<size_t>(tree.n_tokens * tree.H * tree.W),
            "a gradient has the shape of what it is of");
    const Training& training = *kernels(kernels_name).training;
    SharedPool& pool = shared_pool(n_threads);
    nb::gil_scoped_release free;
    Columns& columns = columns_of_this_thread();
    const Pass pass{
        tree,         training,      scale,           q.data(),          k.data(),          v.data(),
        out.data(),   lse.data(),    gradient.data(), q_gradient.data(), k_gradient.data(), v_gradient.data(),
        columns.keys, columns.values};
    pass.lay(pool);
    // What is added to by several units has a share for some of them each; units add to nothing else in common.
    const bool has_shared = tree.n_segments > 0 && tree.segments[0].unit < 0;
    const int64_t n_units = tree.n_segments ? tree.segments[tree.n_segments - 1].unit + 1 : 0;
    const int64_t n_parts = has_shared ? std::clamp<int64_t>(n_units, 1, MOST_SHARES) : n_units;
    const int64_t shared = has_shared ? tree.segments[0].length : 0, wide = shared * tree.K * (tree.D + tree.W);
    Buffer<float> shares(has_shared ? n_parts * wide : 0);  // zeros
    auto part_of = [&](int64_t s) {
        return std::max<int64_t>(0, tree.segments[s].unit) * n_parts / std::max<int64_t>(1, n_units);
    };
    std::vector<int64_t> begins(n_parts + 1, tree.n_segments);
    for (int64_t s = tree.n_segments - 1; s >= 0; s--) begins[part_of(s)] = s;
    for (int64_t i = n_parts - 1; i >= 0; i--) begins[i] = std::min(begins[i], begins[i + 1]);
    in_turn(pool, n_threads, n_parts * tree.K, [&](int64_t i) {
        const int64_t part = i / tree.K, head = i % tree.K;
        float* share = has_shared ? shares.get() + part * wide : nullptr;
        for (int64_t s = begins[part]; s < begins[part + 1]; s++) pass.blocks(s, head, share);
    });
    const int64_t n_keys = shared * tree.K * tree.D, n_values = shared * tree.K * tree.W;
    for (int64_t part = 0; part < n_parts && has_shared; part++) {
        const float* share = shares.get() + part * wide;
        for (int64_t i = 0; i < n_keys; i++) pass.k_gradient[i] += share[i];
        for (int64_t i = 0; i < n_values; i++) pass.v_gradient[i] += share[n_keys + i];
    }
}

}  // namespace

void bind_tree(nb::module_& m) {
    m.def("tree_attention", &tree_attention, nb::arg("n_threads"), nb::arg("segments"), nb::arg("q"), nb::arg("k"),
          nb::arg("v"), nb::arg("scale"), nb::arg("out"), nb::arg("lse"), nb::arg("kernels") = "");
    m.def("tree_attention_backward", &tree_attention_backward, nb::arg("n_threads"), nb::arg("segments"), nb::arg("q"),
          nb::arg("k"), nb::arg("v"), nb::arg("scale"), nb::arg("out"), nb::arg("lse"), nb::arg("gradient"),
          nb::arg("q_gradient"), nb::arg("k_gradient"), nb::arg("v_gradient"), nb::arg("kernels") = "");
}
