// Every other kernel against the plain formula in fp64.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "check.h"
#include "half.h"
#include "kv_page.h"

namespace check {
namespace {

using namespace smallpress;

void check_norm_and_gate(const Kernels& k, int64_t n) {
    Random random(n);
    std::vector<float> x = random.normals(n), y = random.normals(n), out(n);
    for (float& value : x) value *= 3.0f;
    std::vector<double> norm(n), gated(n), bent(n);
    double dot = 0.0;
    double squares = 0.0;
    for (const double value : x) squares += value * value;
    for (int64_t i = 0; i < n; i++) {
        norm[i] = x[i] / std::sqrt(squares / n + 1e-5) * y[i];
        const double value = x[i];
        gated[i] = value / (1.0 + std::exp(-value)) * y[i];
        bent[i] =
            0.5 * value * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (value + 0.044715 * value * value * value))) * y[i];
        dot += value * y[i];
    }
    k.rms_norm(x.data(), y.data(), n, 1e-5f, out.data());
    expect_close(out.data(), norm.data(), n, FP32 * (1.0 + peak(out.data(), n)), at(k, "norm", n));
    k.swiglu(x.data(), y.data(), n, out.data());
    expect_close(out.data(), gated.data(), n, FP32 * (1.0 + peak(out.data(), n)), at(k, "gate", n));
    k.geglu(x.data(), y.data(), n, out.data());
    expect_close(out.data(), bent.data(), n, FP32 * (1.0 + peak(out.data(), n)), at(k, "gelu gate", n));
    for (const int64_t n_rows : {1, 4, 7}) {
        std::vector<float> rows, found(n_rows + 1, 7.0f);
        std::vector<double> wanted(n_rows + 1, 7.0);
        for (int64_t row = 0; row < n_rows; row++) {
            for (const float value : y) rows.push_back(value * (row + 1));
            wanted[row] = dot * (row + 1);
        }
        k.dots(x.data(), rows.data(), n_rows, n, found.data());
        expect_close(found.data(), wanted.data(), n_rows + 1, FP32 * n_rows * (1.0 + std::sqrt(squares * n)),
                     at(k, "dots", n));
    }
}

// a [rank, n] and b [rank, n] of 16-bit numbers, their rows filled up.
void check_low_rank(const Kernels& k, int64_t n) {
    const int64_t stride = round_up(n, LANES);
    for (const int64_t rank : {1, 4, 9}) {
        Random random(n + rank);
        const std::vector<float> x = random.normals(n), low = random.normals(rank), before = random.normals(n);
        std::vector<uint16_t> pairs(rank * stride, 0);
        std::vector<double> narrow(rank, 0.0), wide(before.begin(), before.end());
        for (int64_t r = 0; r < rank; r++) {
            for (int64_t i = 0; i < n; i++) {
                const float value = (r + 1) * 0.25f * (i % 5 - 2);  // exact in bf16
                k.to_bf16(&value, 1, &pairs[r * stride + i]);
                narrow[r] += static_cast<double>(x[i]) * value;
                wide[i] += static_cast<double>(low[r]) * value;
            }
        }
        std::vector<float> out(rank), sums = before;
        k.narrow_dots(x.data(), pairs.data(), rank, n, out.data());
        expect_close(out.data(), narrow.data(), rank, FP32 * rank * (1.0 + n), at(k, "narrow dots", n));
        k.widen_add(low.data(), pairs.data(), rank, n, sums.data());
        expect_close(sums.data(), wide.data(), n, FP32 * rank * 10.0, at(k, "widen and add", n));
    }
}

void check_gate_at_its_ends(const Kernels& k) {
    const float gate[] = {-1e4f, -200.0f, -88.0f, 0.0f, 88.0f, 1e4f}, one[] = {1, 1, 1, 1, 1, 1};
    const float wanted[] = {0.0f, 0.0f, 0.0f, 0.0f, 88.0f, 1e4f};
    float out[6];
    for (const auto gated : {k.swiglu, k.geglu}) {
        gated(gate, one, 6, out);
        expect_close(out, wanted, 6, 1e-30, at(k, "gate at its ends", 6));
    }
}

void check_bf16(const Kernels& k) {
    std::vector<float> x = {0.0f, -0.0f, 1.0f, INF, -INF, NOT_A_NUMBER, 3.4028235e38f, 1e-44f, float_of(0x7f800001)};
    for (uint32_t i = 0; i < 3000; i++) x.push_back(float_of(i * 2654435761u));
    for (const uint32_t tie : {0x3f808000u, 0x3f818000u, 0xbf808001u, 0x3f807fffu}) x.push_back(float_of(tie));
    const int64_t n = x.size();
    const std::string what = at(k, "bf16", n);
    std::vector<uint16_t> out(n);
    k.to_bf16(x.data(), n, out.data());
    for (int64_t i = 0; i < n; i++) {
        const float found = float_of(static_cast<uint32_t>(out[i]) << 16);
        if (std::isnan(x[i])) {
            expect(std::isnan(found), what, "NaN stays one");
            continue;
        }
        // The nearest of the two around it, the even one of two as near.
        const uint32_t bits = bits_of(x[i]), low = bits >> 16, rest = bits & 0xffff;
        const uint32_t wanted = rest > 0x8000 || (rest == 0x8000 && low % 2) ? low + 1 : low;
        expect(out[i] == wanted, what, "the nearest");
    }
}

// Tokens, head_dim, query heads of a kv head, tokens of a page, of a window.
struct Paged {
    int64_t S, D, group, page_size, window = 0;
};
constexpr Paged PAGES[] = {{1, 4, 1, 4},         {5, 20, 3, 4},     {16, 64, 3, 16},      {17, 64, 9, 16},
                           {100, 64, 3, 16},     {33, 80, 2, 7},    {75, 64, 3, 32},      {50, 20, 1, 20},
                           {100, 64, 3, 16, 37}, {33, 80, 2, 7, 1}, {17, 64, 9, 16, 100}, {50, 20, 1, 20, 16}};

// Of q [group, D] over k and v [S, D], cut into pages that were used before: what is left in them has no say.
std::vector<float> attention(const Kernels& table, const std::vector<float>& q, const std::vector<float>& k,
                             const std::vector<float>& v, const Paged& size, bool eight_bits) {
    const auto [S, D, group, page_size, window] = size;
    const KVPage form{D, page_size, eight_bits};
    std::vector<Buffer<uint8_t>> pages;
    std::vector<const uint8_t*> key_pages, value_pages;
    std::vector<uint16_t> narrow(std::max(D, narrow_room(group, S, D)));
    for (int64_t first = 0; first < S; first += page_size) {
        Buffer<uint8_t> keys(form.n_bytes()), values(form.n_bytes());
        for (const Buffer<uint8_t>& page : {std::cref(keys), std::cref(values)})
            for (size_t i = 0; i < page.size(); i++) page[i] = 0xff;  // NaN, as bf16 and as a scale
        for (int64_t i = 0; i < page_size && first + i < S; i++) {
            form.put_key(table, &k[(first + i) * D], i, narrow.data(), keys.get());
            form.put_value(table, &v[(first + i) * D], i, narrow.data(), values.get());
        }
        key_pages.push_back(keys.get());
        value_pages.push_back(values.get());
        pages.push_back(std::move(keys));
        pages.push_back(std::move(values));
    }
    std::vector<float> scores(score_room(group, S)), out(group * D);
    std::vector<const uint8_t*> chunks(chunk_room(S));
    table.attend({q.data(), out.data(), 0, 0, 1, S, page_size, group, D, key_pages.data(), value_pages.data(),
                  scores.data(), narrow.data(), chunks.data(), window, eight_bits});
    return out;
}

// Each token's keys and values as they are after coding and decoding; n of D numbers.
std::vector<float> coded(std::vector<float> x, int64_t D) {
    for (size_t first = 0; first < x.size(); first += D) {
        float largest = 0.0f;
        for (int64_t d = 0; d < D; d++) largest = std::max(largest, std::fabs(x[first + d]));
        for (int64_t d = 0; d < D; d++) x[first + d] = std::nearbyint(x[first + d] * (127 / largest)) * largest / 127;
    }
    return x;
}

void check_attend(const Kernels& k, const Paged& size, bool eight_bits) {
    const auto [S, D, group, page_size, window] = size;
    Random random(S + D);
    const std::vector<float> q = random.normals(group * D);
    std::vector<float> keys = random.normals(S * D), values = random.normals(S * D);
    const std::vector<float> found = attention(k, q, keys, values, size, eight_bits),
                             scalar = attention(*tables()[0], q, keys, values, size, eight_bits);
    if (eight_bits) keys = coded(keys, D), values = coded(values, D);
    // A weight of the softmax may be rounded to bf16 the other way.
    expect_close(found.data(), scalar.data(), group * D, BF16 / 4, at(k, "attention beside the scalar one, tokens", S));
    for (int64_t h = 0; h < group; h++) {
        std::vector<double> wanted(D);
        double total = 0.0;
        for (int64_t t = window ? std::max<int64_t>(0, S - window) : 0; t < S; t++) {
            double dot = 0.0;
            for (int64_t d = 0; d < D; d++) dot += static_cast<double>(q[h * D + d]) * keys[t * D + d];
            const double weight = std::exp(dot / std::sqrt(static_cast<double>(D)));
            total += weight;
            for (int64_t d = 0; d < D; d++) wanted[d] += weight * values[t * D + d];
        }
        for (double& value : wanted) value /= total;
        expect_close(&found[h * D], wanted.data(), D, 4 * BF16, at(k, "attention, tokens", S));
    }
}

// Tokens [first, last) of a sequence, widths of a row and of its part that is mixed, heads, tokens of a page.
struct Latents {
    int64_t first, last, width, rank, n_heads, page_size;
};
constexpr Latents LATENTS[] = {{0, 1, 4, 3, 1, 4},        {0, 20, 38, 33, 3, 7},    {9, 31, 26, 20, 16, 16},
                               {16, 21, 8, 1, 9, 5},      {0, 70, 104, 64, 16, 16}, {3, 64, 98, 80, 12, 32},
                               {16, 121, 96, 64, 16, 16}, {0, 33, 160, 128, 5, 32}, {64, 65, 64, 64, 1, 64}};

void check_latent(const Kernels& k, const Latents& size) {
    const auto [first, last, width, rank, n_heads, page_size] = size;
    Random random(last + width);
    std::vector<float> q = random.normals(n_heads * width), rows = random.normals(last * width);
    for (float& x : q) x /= std::sqrt(static_cast<float>(width));
    std::vector<Buffer<uint16_t>> pages;
    std::vector<const uint16_t*> addresses;
    for (int64_t begin = 0; begin < last; begin += page_size) {
        pages.emplace_back(page_size * width);
        for (size_t i = 0; i < pages.back().size(); i++) pages.back()[i] = 0x7fc0;  // NaN
        for (int64_t i = std::max(begin, first); i < std::min(begin + page_size, last); i++)
            k.to_bf16(&rows[i * width], width, &pages.back()[(i - begin) * width]);
        addresses.push_back(pages.back().get());
    }
    std::vector<uint16_t> turned(width * LANES);
    for (int64_t h = 0; h < n_heads; h++)
        for (int64_t d = 0; d < width; d++) k.to_bf16(&q[h * width + d], 1, &turned[(d / 2 * LANES + h) * 2 + d % 2]);
    std::vector<float> weights(LATENT_SPAN * LANES), peaks(LANES), sums(LANES), mix(LANES * rank);
    k.attend_latent({turned.data(), addresses.data(), page_size, width, rank, n_heads, first, last, weights.data(),
                     peaks.data(), sums.data(), mix.data()});
    for (int64_t h = 0; h < n_heads; h++) {
        std::vector<double> dots, wanted(rank);
        for (int64_t t = first; t < last; t++) {
            dots.push_back(0.0);
            for (int64_t d = 0; d < width; d++)
                dots.back() += static_cast<double>(q[h * width + d]) * rows[t * width + d];
        }
        const double best = *std::max_element(dots.begin(), dots.end());
        double total = 0.0;
        for (int64_t t = first; t < last; t++) {
            const double weight = std::exp(dots[t - first] - best);
            total += weight;
            for (int64_t d = 0; d < rank; d++) wanted[d] += weight * rows[t * width + d];
        }
        const std::string what = at(k, "latents, tokens", last - first);
        expect(std::fabs(peaks[h] - best) <= 4 * BF16, what, "the largest score");
        expect(std::fabs(sums[h] - total) <= 4 * BF16 * total, what, "sum");
        expect_close(&mix[h * rank], wanted.data(), rank, 4 * BF16 * total, what + "mix");
    }
}

void check_weigh(const Kernels& k, int64_t n) {
    constexpr float TEMPERATURE = 0.7f;
    std::vector<float> x = Random(n).normals(n), weights(n);
    for (float& value : x) value *= 10.0f;
    std::vector<double> sums((n + SUMMED - 1) / SUMMED);
    const float best = k.largest(x.data(), n);
    const double found = k.weigh(x.data(), n, best, 1.0f / TEMPERATURE, weights.data(), sums.data());
    const std::string what = at(k, "draw", n);
    double total = 0.0, summed = 0.0;
    for (int64_t i = 0; i < n; i++) {
        expect(x[i] <= best, what, "largest");
        const double wanted = std::exp((static_cast<double>(x[i]) - best) / TEMPERATURE);
        expect(std::fabs(weights[i] - wanted) <= 1e-5 * wanted + 1e-36, what, "weight");
        total += wanted;
    }
    for (const double part : sums) summed += part;
    expect(std::fabs(found - total) <= 1e-6 * total && std::fabs(summed - found) <= 1e-12 * total, what, "sum");
    for (const float bad : {INF, -INF, NOT_A_NUMBER}) {
        x[n - 1] = bad;
        expect(std::isnan(k.largest(x.data(), n)), what, "largest where one is not finite");
    }
}

}  // namespace

void check_kernels(const Kernels& k) {
    for (const int64_t n : LENGTHS) check_norm_and_gate(k, n);
    for (const int64_t n : LENGTHS) check_low_rank(k, n);
    check_gate_at_its_ends(k);
    check_bf16(k);
    for (const Paged& size : PAGES)
        for (const bool eight_bits : {false, true}) check_attend(k, size, eight_bits);
    for (const Latents& size : LATENTS) check_latent(k, size);
    for (const int64_t n : {1, 16, 255, 256, 257, 1000}) check_weigh(k, n);
    expect(k.exercise(3) >= 3 * LANES * QUAD, at(k, "exercise, rounds", 3));
}

}  // namespace check
