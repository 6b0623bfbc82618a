// Latent attention (DeepSeek-V2 and V3) in its absorbed form; see src/smallpress/model/mla.py. Long runs of a prompt
// take the plain one: mla_prompt.cpp.
//
// Of each token the cache holds one row, [latent after its norm; rotated key], which all heads read. Head h asks
// [K_h^T q_nope; q_rope] and makes its value of the latents' mix by V_h: two products for each head, of its part of
// `kv_b`. Up to 16 heads are computed together.
//
// A sequence is read in spans of fixed bounds, whose results are put together one after another: a thread takes a
// query's spans in turn, or, where queries are few, threads share them, and the bits are the same.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "model.h"

namespace smallpress {
namespace {

constexpr int64_t SLICE = 128;  // rows of a step whose queries and mixes are in memory at once

// What spans of one query give, put together: see LatentSpan.
struct State {
    float *peaks, *sums, *mix;
};

// Adds a later span to an earlier one.
void merge(const State& to, const State& next, int64_t n_heads, int64_t rank) {
    for (int64_t h = 0; h < n_heads; h++) {
        const float peak = std::max(to.peaks[h], next.peaks[h]);
        const float old = std::exp(to.peaks[h] - peak), now = std::exp(next.peaks[h] - peak);
        to.peaks[h] = peak;
        to.sums[h] = to.sums[h] * old + next.sums[h] * now;
        float* out = to.mix + h * rank;
        const float* from = next.mix + h * rank;
        for (int64_t i = 0; i < rank; i++) out[i] = out[i] * old + from[i] * now;
    }
}

}  // namespace

uint16_t* Model::latents(int64_t layer, int64_t page) const {
    return reinterpret_cast<uint16_t*>(page_part(layer, page));
}

void Model::latent_attention(const Layer& layer, int64_t index, const Rows& rows) {
    const int64_t N = rows.N, rank = config_.latent->q_rank;
    const int64_t asked = rank ? rank : q_dim(), kv = kv_column(), width = down_width();
    qkv_.reserve(N * width);
    product({{rank ? &layer.q_a : &layer.q}, {&layer.kv_a, kv}}, N, qkv_.get(), width, Store::SET);
    place_latents(layer, index, rows);
    if (rank) {
        act_.reserve(N, rank);
        q_.reserve(N * q_dim());
        pool_.split(N, 1, [&](int, int64_t begin, int64_t end) {
            for (int64_t n = begin; n < end; n++) {
                float* row = qkv_.get() + n * width;
                for (size_t i = 0; i < layer.q_a_bias.size(); i++) row[i] += layer.q_a_bias[i];
                k_.rms_norm(row, layer.q_a_norm.get(), asked, config_.latent->norm_eps, row);
                take(row, asked, act_, n);
            }
        });
        product({{&layer.q}}, N, q_.get(), q_dim(), Store::SET);
    }
    int64_t done = 0;
    auto absorb_until = [&](int64_t end) {
        for (int64_t n; done < end; done += n) {
            n = std::min(SLICE, end - done);
            absorb(layer, index, done, n);
            attend_latents(index, rows, done, n);
            unfold(layer, done, n);
        }
    };
    for (const Run& run : whole_runs(rows)) {
        if (!pays_plain(run.n_rows, rows.positions[run.first])) continue;
        absorb_until(run.first);
        attend_plain(layer, index, rows, run);
        done = run.first + run.n_rows;
    }
    absorb_until(N);
}

void Model::place_latents(const Layer& layer, int64_t index, const Rows& rows) {
    const Latent& latent = *config_.latent;
    const int64_t C = latent.kv_rank, R = latent.rope_dim, kv = kv_column(), width = down_width();
    pool_.split(rows.N, 1, [&](int thread, int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; n++) {
            float* row = qkv_.get() + n * width + kv;
            for (size_t i = 0; i < layer.kv_a_bias.size(); i++) row[i] += layer.kv_a_bias[i];
            k_.rms_norm(row, layer.kv_a_norm.get(), C, latent.norm_eps, row);
            rotate_head(row + C, config_.layers[index].rope, n, R, thread);
            uint16_t* to = latents(index, rows.tables[n][rows.positions[n] / page_size_]);
            to += rows.positions[n] % page_size_ * latent_width();
            k_.to_bf16(row, C + R, to);
            if (latent_width() > C + R) to[C + R] = 0;
        }
    });
}

// Of rows [first, first + n): queries over latents, [row, group of heads, latent_width / 2, LATENT_HEADS, 2] in bf16.
void Model::absorb(const Layer& layer, int64_t index, int64_t first, int64_t n) {
    const Latent& latent = *config_.latent;
    const int64_t H = config_.n_heads, C = latent.kv_rank, P = latent.nope_dim, R = latent.rope_dim;
    const int64_t apart = round_up(n, Activations::TILE), panels = (C + PANEL - 1) / PANEL, width = latent_width();
    const int64_t stride = latent.q_rank ? q_dim() : down_width(), groups = n_groups();
    float* q = (latent.q_rank ? q_ : qkv_).get() + first * stride;
    gathered_.reserve(H * apart, P);
    folded_.reserve(n * H * C);
    queries_.reserve(n * groups * width * LATENT_HEADS);
    pool_.split(n, 1, [&](int, int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row++)
            for (int64_t h = 0; h < H; h++) take(q + row * stride + h * (P + R), P, gathered_, h * apart + row);
    });
    std::vector<Job> jobs;
    for (int64_t h = 0; h < H; h++)
        jobs.push_back({gathered_.from(h * apart), n, layer.k_up.from(h * panels, C), folded_.get() + h * C, H * C});
    run(jobs);
    pool_.split(n, 1, [&](int thread, int64_t begin, int64_t end) {
        Buffer<uint16_t>& narrow = narrow_[thread];
        narrow.reserve(width);
        std::vector<float> both(width, 0.0f);
        for (int64_t row = begin; row < end; row++)
            for (int64_t h = 0; h < groups * LATENT_HEADS; h++) {
                uint16_t* to =
                    queries_.get() + (row * groups + h / LATENT_HEADS) * width * LATENT_HEADS + h % LATENT_HEADS * 2;
                if (h < H) {
                    float* turned = q + row * stride + h * (P + R) + P;
                    rotate_head(turned, config_.layers[index].rope, first + row, R, thread);
                    std::copy_n(folded_.get() + (row * H + h) * C, C, both.begin());
                    std::copy_n(turned, R, both.begin() + C);
                    for (float& x : both) x *= config_.score_scale;
                } else {
                    std::fill(both.begin(), both.end(), 0.0f);
                }
                k_.to_bf16(both.data(), width, narrow.get());
                for (int64_t i = 0; i < width; i += 2) std::memcpy(to + i * LATENT_HEADS, narrow.get() + i, 4);
            }
    });
}

// The mix of latents of each head, [n, H, kv_rank], in `folded_`.
void Model::attend_latents(int64_t layer, const Rows& rows, int64_t first, int64_t n) {
    const int64_t H = config_.n_heads, C = config_.latent->kv_rank, groups = n_groups(), width = latent_width();
    const int64_t state_size = LATENT_HEADS * (C + 2), n_queries = n * groups;
    auto n_spans = [&](int64_t query) { return rows.positions[first + query / groups] / LATENT_SPAN + 1; };
    auto heads = [&](int64_t query) { return std::min(LATENT_HEADS, H - query % groups * LATENT_HEADS); };
    auto state = [&](float* p) { return State{p, p + LATENT_HEADS, p + 2 * LATENT_HEADS}; };
    auto read = [&](int thread, int64_t query, int64_t span, const State& to) {
        const int64_t row = first + query / groups, end = std::min(rows.positions[row] + 1, (span + 1) * LATENT_SPAN);
        auto& pages = latent_pages_[thread];
        pages.resize((end + page_size_ - 1) / page_size_);
        for (size_t i = span * LATENT_SPAN / page_size_; i < pages.size(); i++)
            pages[i] = latents(layer, rows.tables[row][i]);
        scratch_[thread].reserve(LATENT_SPAN * LATENT_HEADS + state_size);
        k_.attend_latent({queries_.get() + query * width * LATENT_HEADS, pages.data(), page_size_, width, C,
                          heads(query), span * LATENT_SPAN, end, scratch_[thread].get(), to.peaks, to.sums, to.mix});
    };
    auto finish = [&](int64_t query, const State& from) {
        float* to = folded_.get() + (query / groups * H + query % groups * LATENT_HEADS) * C;
        for (int64_t h = 0; h < heads(query); h++)
            for (int64_t i = 0; i < C; i++) to[h * C + i] = from.mix[h * C + i] / from.sums[h];
    };
    std::atomic<int64_t> next{0};
    if (n_queries >= 2 * pool_.n_threads()) {
        spans_.reserve(pool_.n_threads() * state_size);
        // Queries differ in length, so threads take them as they come.
        pool_.run([&](int thread) {
            const State whole = state(spans_.get() + thread * state_size);
            for (int64_t query; (query = next.fetch_add(1)) < n_queries;) {
                read(thread, query, 0, whole);
                for (int64_t span = 1; span < n_spans(query); span++) {
                    const State part = state(scratch_[thread].get() + LATENT_SPAN * LATENT_HEADS);
                    read(thread, query, span, part);
                    merge(whole, part, heads(query), C);
                }
                finish(query, whole);
            }
        });
        return;
    }
    std::vector<int64_t> starts{0};
    for (int64_t query = 0; query < n_queries; query++) starts.push_back(starts.back() + n_spans(query));
    spans_.reserve(starts.back() * state_size);
    auto state_of = [&](int64_t item) { return state(spans_.get() + item * state_size); };
    pool_.run([&](int thread) {
        for (int64_t item; (item = next.fetch_add(1)) < starts.back();) {
            const int64_t query = std::upper_bound(starts.begin(), starts.end(), item) - starts.begin() - 1;
            read(thread, query, item - starts[query], state_of(item));
        }
    });
    pool_.split(n_queries, 1, [&](int, int64_t begin, int64_t end) {
        for (int64_t query = begin; query < end; query++) {
            const State whole = state_of(starts[query]);
            for (int64_t item = starts[query] + 1; item < starts[query + 1]; item++)
                merge(whole, state_of(item), heads(query), C);
            finish(query, whole);
        }
    });
}

// What the heads make of their mixes, into `mixed_`.
void Model::unfold(const Layer& layer, int64_t first, int64_t n) {
    const int64_t H = config_.n_heads, C = config_.latent->kv_rank, W = config_.latent->v_dim;
    const int64_t apart = round_up(n, Activations::TILE), panels = (W + PANEL - 1) / PANEL;
    gathered_.reserve(H * apart, C);
    pool_.split(n, 1, [&](int, int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row++)
            for (int64_t h = 0; h < H; h++) take(folded_.get() + (row * H + h) * C, C, gathered_, h * apart + row);
    });
    std::vector<Job> jobs;
    for (int64_t h = 0; h < H; h++)
        jobs.push_back({gathered_.from(h * apart), n, layer.v_up.from(h * panels, W),
                        mixed_.get() + first * mixed_dim() + h * W, mixed_dim()});
    run(jobs);
}

}  // namespace smallpress
