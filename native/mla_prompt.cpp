// Latent attention of a prompt in its plain form: a head's keys and values are made of the latents, once for all
// queries; see src/smallpress/model/mla.py. The cache holds latents as ever.
//
// One head after the other, so that keys and values of one are in memory at once. They lie as a single page of
// grouped-query attention with one head of queries, whose widths are filled up with zeros to one that tiles take.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "half.h"
#include "model.h"

namespace smallpress {
namespace {

constexpr int64_t LEAST = 64;     // rows; fewer are absorbed, decoded tokens and drafts among them
constexpr int64_t TOGETHER = 64;  // rows that attend in one piece of work

}  // namespace

// Sequences' rows, as many as follow one another.
std::vector<Model::Run> Model::whole_runs(const Rows& rows) const {
    std::vector<Run> found;
    for (int64_t n = 0; n < rows.N; n++) {
        const bool goes_on =
            n > 0 && rows.tables[n] == rows.tables[n - 1] && rows.positions[n] == rows.positions[n - 1] + 1;
        if (!goes_on) found.push_back({n, 0});
        found.back().n_rows++;
    }
    return found;
}

// n queries behind `before` tokens. Of multiplications, making keys and values takes the plain form, for each token
// that is no query's own, (nope_dim + v_dim) kv_rank more a head; a query with a token, 2 kv_rank - nope_dim - v_dim
// fewer.
bool Model::pays_plain(int64_t n, int64_t before) const {
    const Latent& latent = *config_.latent;
    const double made = latent.nope_dim + latent.v_dim, pairs = n * (before + 0.5 * n);
    return n >= LEAST && before * made * latent.kv_rank < pairs * (2.0 * latent.kv_rank - made);
}

void Model::attend_plain(const Layer& layer, int64_t index, const Rows& rows, const Run& prompt) {
    const Latent& latent = *config_.latent;
    const int64_t H = config_.n_heads, C = latent.kv_rank, P = latent.nope_dim, R = latent.rope_dim, W = latent.v_dim;
    const int64_t N = prompt.n_rows, first = prompt.first, S = rows.positions[first] + N,
                  width = round_up(std::max(P + R, W), 32);
    const int64_t page = round_up(S, LANES), k_panels = (P + PANEL - 1) / PANEL, v_panels = (W + PANEL - 1) / PANEL;
    const int64_t* table = rows.tables[first];
    auto latent_row = [&](int64_t t) {
        return latents(index, table[t / page_size_]) + t % page_size_ * latent_width();
    };
    gathered_.reserve(S, C);
    pool_.split(S, 1, [&](int thread, int64_t begin, int64_t end) {
        scratch_[thread].reserve(C);
        for (int64_t t = begin; t < end; t++) {
            for (int64_t i = 0; i < C; i++) scratch_[thread][i] = float_of(uint32_t{latent_row(t)[i]} << 16);
            take(scratch_[thread].get(), C, gathered_, t);
        }
    });
    const int64_t stride = latent.q_rank ? q_dim() : down_width();
    float* queries = (latent.q_rank ? q_ : qkv_).get() + first * stride;
    const float gain = config_.score_scale * std::sqrt(static_cast<float>(width));  // what attend() has too little
    made_.reserve(S * (P + W));
    folded_.reserve(2 * N * width);
    float *q = folded_.get(), *mix = q + N * width;
    queries_.reserve(2 * page * width);
    uint16_t *keys = queries_.get(), *values = keys + page * width;
    std::memset(keys, 0, 2 * page * width * sizeof(uint16_t));
    for (int64_t h = 0; h < H; h++) {
        std::vector<Job> jobs;
        jobs.push_back({gathered_.from(0), S, layer.k_plain.from(h * k_panels, P), made_.get(), P + W});
        jobs.push_back({gathered_.from(0), S, layer.v_up.from(h * v_panels, W), made_.get() + P, P + W});
        run(jobs);
        pool_.split(S + N, 1, [&](int thread, int64_t begin, int64_t end) {
            narrow_[thread].reserve(P + W);
            uint16_t* narrow = narrow_[thread].get();
            for (int64_t t = begin; t < std::min(end, S); t++) {
                k_.to_bf16(made_.get() + t * (P + W), P + W, narrow);
                uint16_t* key = keys + t / LANES * width * LANES + t % LANES * 2;
                const uint16_t* turned = latent_row(t) + C;
                for (int64_t d = 0; d < P; d++) key[d / 2 * LANES * 2 + d % 2] = narrow[d];
                for (int64_t d = P; d < P + R; d++) key[d / 2 * LANES * 2 + d % 2] = turned[d - P];
                uint16_t* value = values + t / 2 * width * 2 + t % 2;
                for (int64_t d = 0; d < W; d++) value[d * 2] = narrow[P + d];
            }
            for (int64_t n = std::max<int64_t>(begin - S, 0); n < end - S; n++) {
                float *from = queries + n * stride + h * (P + R), *to = q + n * width;
                rotate_head(from + P, config_.layers[index].rope, first + n, R, thread);
                for (int64_t d = 0; d < width; d++) to[d] = d < P + R ? gain * from[d] : 0.0f;
            }
        });
        std::atomic<int64_t> next{0};
        pool_.run([&](int thread) {
            for (int64_t n; (n = TOGETHER * next.fetch_add(1)) < N;) {
                const int64_t n_rows = std::min(TOGETHER, N - n), length = S - N + n + 1, longest = length + n_rows - 1;
                scratch_[thread].reserve(score_room(1, longest));
                narrow_[thread].reserve(narrow_room(1, longest, width));
                chunks_[thread].resize(chunk_room(longest));
                const auto *key_page = reinterpret_cast<const uint8_t*>(keys),
                           *value_page = reinterpret_cast<const uint8_t*>(values);
                k_.attend({q + n * width, mix + n * width, width, width, n_rows, length, page, 1, width, &key_page,
                           &value_page, scratch_[thread].get(), narrow_[thread].get(), chunks_[thread].data()});
                for (int64_t row = n; row < n + n_rows; row++)
                    std::copy_n(mix + row * width, W, mixed_.get() + (first + row) * mixed_dim() + h * W);
            }
        });
    }
}

}  // namespace smallpress
