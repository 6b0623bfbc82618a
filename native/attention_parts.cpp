// Attention of few long rows with few heads of keys: their tokens are shared out where threads would have nothing to
// do. Where each has a head, memory is what they wait for.

#include <algorithm>
#include <atomic>

#include "model.h"

namespace smallpress {
namespace {

constexpr int64_t LONG = 512;         // tokens; below it two more meetings of all threads cost more than they gain
constexpr int64_t TILES_AT_ONCE = 8;  // of keys, in one piece of work

// work(thread, i) for all of [0, n), each by the thread that is free.
template <typename Work>
void share(Pool& pool, int64_t n, const Work& work) {
    std::atomic<int64_t> next{0};
    pool.run([&](int thread) {
        for (int64_t i; (i = next.fetch_add(1)) < n;) work(thread, i);
    });
}

}  // namespace

// Whether it did so: rows of one token each, and fewer heads of keys among them than threads. Of pages without whole
// tiles, a tile's scores would run into the next page's.
bool Model::attend_in_parts(int64_t layer, const Rows& rows, const std::vector<Run>& runs) {
    const int64_t K = config_.n_kv_heads, n_items = static_cast<int64_t>(runs.size()) * K,
                  n_threads = pool_.n_threads();
    if (!k_.in_parts || n_items >= n_threads || page_size_ % LANES) return false;
    int64_t longest = 0, shortest = LONG;
    for (const Run& run : runs) {
        if (run.n_rows > 1) return false;
        longest = std::max(longest, rows.positions[run.first] + 1);
        shortest = std::min(shortest, rows.positions[run.first] + 1);
    }
    const int64_t window = config_.layers[layer].window;
    if (shortest < LONG || (window && window < LONG)) return false;

    const int64_t group = config_.n_heads / K, D = config_.head_dim, room = group * (score_width(longest) + LANES);
    part_scores_.reserve(n_items * room);
    part_pairs_.reserve(2 * n_items * room);
    part_keys_.resize(n_items), part_values_.resize(n_items);
    std::vector<Attention> items;
    int64_t n_tiles = 0;
    for (int64_t i = 0; i < n_items; i++) {
        items.push_back(attention(layer, rows, runs[i / K], i % K, part_keys_[i], part_values_[i]));
        items[i].scores = part_scores_.get() + i * room, items[i].narrow = part_pairs_.get() + 2 * i * room;
        n_tiles = std::max<int64_t>(n_tiles, part_keys_[i].size() * page_size_ / LANES);
    }
    std::vector<float> inverses(n_items * group);
    const int64_t n_parts = (n_tiles + TILES_AT_ONCE - 1) / TILES_AT_ONCE;
    share(pool_, n_items * n_parts, [&](int thread, int64_t i) {
        narrow_[thread].reserve(group * D + LANES);
        const int64_t first = i % n_parts * TILES_AT_ONCE;
        k_.in_parts->score(items[i / n_parts], first, first + TILES_AT_ONCE, narrow_[thread].get());
    });
    share(pool_, n_items * group,
          [&](int, int64_t i) { k_.in_parts->weigh(items[i / group], i % group, &inverses[i / group * group]); });
    // Columns in as many pieces as there are threads, of whole lanes.
    const int64_t n_lanes = (D + LANES - 1) / LANES, pieces = std::min<int64_t>(n_threads, n_lanes);
    share(pool_, n_items * pieces, [&](int, int64_t i) {
        const int64_t piece = i % pieces, first = n_lanes * piece / pieces * LANES;
        k_.in_parts->mix(items[i / pieces], first, n_lanes * (piece + 1) / pieces * LANES,
                         &inverses[i / pieces * group]);
    });
    return true;
}

}  // namespace smallpress
