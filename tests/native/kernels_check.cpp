// Every other kernel against the plain formula in fp64.

#include <cmath>
#include <cstring>

#include "check.h"
#include "half.h"

namespace check {
namespace {

using namespace smallpress;

void check_norm_and_gate(const Kernels& k, int64_t n) {
    Random random(n);
    std::vector<float> x = random.normals(n), y = random.normals(n), out(n);
    for (float& value : x) value *= 3.0f;
    std::vector<double> norm(n), gated(n);
    double squares = 0.0;
    for (const double value : x) squares += value * value;
    for (int64_t i = 0; i < n; i++) {
        norm[i] = x[i] / std::sqrt(squares / n + 1e-5) * y[i];
        gated[i] = x[i] / (1.0 + std::exp(-static_cast<double>(x[i]))) * y[i];
    }
    k.rms_norm(x.data(), y.data(), n, 1e-5f, out.data());
    expect_close(out.data(), norm.data(), n, FP32 * (1.0 + peak(out.data(), n)), at(k, "norm", n));
    k.swiglu(x.data(), y.data(), n, out.data());
    expect_close(out.data(), gated.data(), n, FP32 * (1.0 + peak(out.data(), n)), at(k, "gate", n));
}

void check_gate_at_its_ends(const Kernels& k) {
    const float gate[] = {-1e4f, -200.0f, -88.0f, 0.0f, 88.0f, 1e4f}, one[] = {1, 1, 1, 1, 1, 1};
    const float wanted[] = {0.0f, 0.0f, 0.0f, 0.0f, 88.0f, 1e4f};
    float out[6];
    k.swiglu(gate, one, 6, out);
    expect_close(out, wanted, 6, 1e-30, at(k, "gate at its ends", 6));
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

// Tokens, head_dim, query heads of a kv head, tokens of a page.
struct Paged {
    int64_t S, D, group, page_size;
};
constexpr Paged PAGES[] = {{1, 4, 1, 4},     {5, 20, 3, 4},  {16, 64, 3, 16}, {17, 64, 9, 16},
                           {100, 64, 3, 16}, {33, 80, 2, 7}, {75, 64, 3, 32}, {50, 20, 1, 20}};

// Of q [group, D] over k and v [S, D], cut into pages that were used before: what is left in them has no say.
std::vector<float> attention(const Kernels& table, const std::vector<float>& q, const std::vector<float>& k,
                             const std::vector<float>& v, const Paged& size) {
    const auto [S, D, group, page_size] = size;
    std::vector<Buffer<uint16_t>> pages;
    std::vector<const uint16_t*> key_pages, value_pages;
    for (int64_t first = 0; first < S; first += page_size) {
        Buffer<uint16_t> keys(D * round_up(page_size, LANES)), values(D * round_up(page_size, 2));
        for (size_t i = 0; i < keys.size(); i++) keys[i] = 0x7fc0;  // NaN
        for (size_t i = 0; i < values.size(); i++) values[i] = 0x7fc0;
        for (int64_t i = 0; i < page_size && first + i < S; i++)
            for (int64_t d = 0; d < D; d++) {
                const int64_t from = (first + i) * D + d;
                table.to_bf16(&k[from], 1, &keys[(i / LANES * D + d / 2 * 2) * LANES + i % LANES * 2 + d % 2]);
                table.to_bf16(&v[from], 1, &values[(i / 2 * D + d) * 2 + i % 2]);
            }
        key_pages.push_back(keys.get());
        value_pages.push_back(values.get());
        pages.push_back(std::move(keys));
        pages.push_back(std::move(values));
    }
    std::vector<float> scores(score_room(group, S)), out(group * D);
    std::vector<uint16_t> narrow(narrow_room(group, S, D));
    std::vector<const uint16_t*> chunks(chunk_room(S));
    table.attend({q.data(), out.data(), 0, 0, 1, S, page_size, group, D, key_pages.data(), value_pages.data(),
                  scores.data(), narrow.data(), chunks.data()});
    return out;
}

void check_attend(const Kernels& k, const Paged& size) {
    const auto [S, D, group, page_size] = size;
    Random random(S + D);
    const std::vector<float> q = random.normals(group * D), keys = random.normals(S * D),
                             values = random.normals(S * D);
    const std::vector<float> found = attention(k, q, keys, values, size),
                             scalar = attention(*tables()[0], q, keys, values, size);
    // A weight of the softmax may be rounded to bf16 the other way.
    expect_close(found.data(), scalar.data(), group * D, BF16 / 4, at(k, "attention beside the scalar one, tokens", S));
    for (int64_t h = 0; h < group; h++) {
        std::vector<double> wanted(D);
        double total = 0.0;
        for (int64_t t = 0; t < S; t++) {
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
    check_gate_at_its_ends(k);
    check_bf16(k);
    for (const Paged& size : PAGES) check_attend(k, size);
    for (const int64_t n : {1, 16, 255, 256, 257, 1000}) check_weigh(k, n);
    expect(k.exercise(3) >= 3 * LANES * QUAD, at(k, "exercise, rounds", 3));
}

}  // namespace check
