// Weights in few bits, activations in 8 and 12 bits and bf16, and their products, against the plain formula in fp64.

#include <cmath>
#include <cstring>

#include "blocks.h"
#include "check.h"
#include "half.h"

namespace check {
namespace {

using namespace smallpress;

constexpr int64_t TILE = Activations::TILE;

// A coding, the steps from 0 to a block's largest number, and what the number of columns must be a multiple of.
struct Coded {
    Coding coding;
    const char* name;
    double n_steps;
    int64_t columns;
    int lowest, highest;  // numbers that it keeps exactly where a half has both
};
constexpr Coded CODINGS[] = {
    {Coding::Q8, "Q8", 127, 1, -127, 127},
    {Coding::Q4_1, "Q4_1", 7, 1, -3, 12},
    {Coding::BF16, "BF16", 128, 1, -127, 127},
    {Coding::Q4, "Q4", 7, HALF, -7, 7},
};

Activations activations(const Kernels& k, const std::vector<float>& x, int64_t M) {
    const int64_t K = x.size() / M;
    Activations out;
    out.reserve(M, K);
    for (int64_t row = 0; row < M; row++) {
        k.quantize(&x[row * K], K, out, row);
        k.narrow(&x[row * K], K, out, row);
    }
    return out;
}

// Packed by the table or, in Q4, as a file has it; `finite`: what both say of the numbers.
Panels packed(const Kernels& k, Coding coding, const std::vector<float>& w, int64_t N, bool finite = true) {
    const int64_t K = w.size() / N;
    const std::vector<uint8_t> file = coding == Coding::Q4 ? q4_0(w) : std::vector<uint8_t>();
    const int64_t row_bytes = file.size() / N;
    Panels out(coding, N, K);
    bool good = true;
    for (int64_t panel = 0; panel < out.n_panels(); panel++) {
        const int64_t row = panel * PANEL, n = N - row < PANEL ? N - row : PANEL;
        good &= coding == Coding::Q4
                    ? block_format("Q4_0")->regroup(file.data() + row * row_bytes, row_bytes, n, out, panel)
                    : k.pack(&w[row * K], n, out, panel);
    }
    expect(good == finite, at(k, "weights", K), "whether they are finite");
    return out;
}

float wide(uint16_t bf16) { return float_of(static_cast<uint32_t>(bf16) << 16); }

// Rows' spans times the Hadamard matrix over 8, by its definition: an entry's sign is the parity of its place. A
// weight's whole ones are over 16; what is turned as the one and then as the other is as before.
template <typename T>
std::vector<T> turned(const std::vector<T>& x, int64_t K, bool weight = false) {
    const int64_t width = round_up(K, BLOCK);
    std::vector<T> out(x.size() / K * width);
    for (size_t i = 0; i < out.size(); i++) {
        const int64_t row = i / width, begin = i % width / SPAN * SPAN, n = width - begin < SPAN ? BLOCK : SPAN;
        double total = 0.0;
        for (int64_t j = 0; j < n; j++) {
            const double value = begin + j < K ? x[row * K + begin + j] : 0.0;
            total += __builtin_parityll((i % width - begin) & j) ? -value : value;
        }
        out[i] = static_cast<T>(total / (weight && n == SPAN ? 16 : 8));
    }
    return out;
}

// What a packed weight stands for, in 8 bits turned; the places are those of docs/formats.md.
double weight(const Panels& w, int64_t n, int64_t k) {
    const uint8_t* codes = w.codes(n / 16);
    const int64_t lane = n % 16;
    if (w.coding == Coding::BF16) {
        uint16_t number;
        std::memcpy(&number, codes + k / 64 * 2048 + k % 64 / 2 * 64 + lane * 4 + k % 2 * 2, 2);
        return wide(number);
    }
    if (w.coding == Coding::Q8)
        return half_to_float(w.scales(n / 16)[k / 128 * 16 + lane]) *
               static_cast<double>(static_cast<int8_t>(codes[k / 64 * 1024 + k % 64 / 4 * 64 + lane * 4 + k % 4]));
    const int code = codes[k / 32 * 256 + k % 16 / 4 * 64 + lane * 4 + k % 4] >> (k % 32 / 16 * 4) & 15;
    const double scale = half_to_float(w.scales(n / 16)[k / 32 * 16 + lane]);
    return w.coding == Coding::Q4 ? scale * (code - 8)
                                  : scale * code + half_to_float(w.minima(n / 16)[k / 32 * 16 + lane]);
}

double eight(const Activations& x, int64_t row, int64_t k) {
    return static_cast<double>(x.spans(row)[k / SPAN * TILE]) * x.eights(row)[k / BLOCK * TILE * BLOCK + k % BLOCK];
}

int four_code(const Activations& x, int64_t row, int64_t k) {
    const int8_t* high = x.fours(row) + k / HALF * TILE * BLOCK + k % HALF;
    return high[0] * 16 + high[HALF];
}

// What is multiplied by weights of that coding, in 8 bits turned.
double activation(const Activations& x, Coding coding, int64_t row, int64_t k) {
    if (coding == Coding::BF16) return wide(x.narrow(row)[k / BLOCK * BLOCK * TILE + k % BLOCK]);
    if (coding == Coding::Q8) return eight(x, row, k);
    return x.four_scales[row] * static_cast<double>(four_code(x, row, k));
}

void check_activations(const Kernels& k, int64_t n) {
    const std::vector<float> x = Random(n).normals(n);
    constexpr int64_t ROW = 5;
    std::vector<float> rows(TILE * n);
    std::memcpy(&rows[ROW * n], x.data(), n * sizeof(float));
    const Activations to = activations(k, rows, TILE);
    const std::string what = at(k, "activations", n);
    const std::vector<float> turned_x = turned(x, n);
    const double most = peak(x.data(), n), four = to.four_scales[ROW];
    expect(std::fabs(four - most / (127 * 16)) <= FP32 * four, what, "scale of 12 bits");
    int sum = 0;
    const int64_t width = to.n_blocks * BLOCK;
    for (int64_t i = 0; i < width; i++) {
        const float wanted = i < n ? x[i] : 0.0f;
        const int64_t begin = i / SPAN * SPAN;
        const double scale = to.spans(ROW)[i / SPAN * TILE];
        const double of_span = peak(&turned_x[begin], width - begin < SPAN ? width - begin : SPAN) / 127;
        expect(std::fabs(scale - of_span) <= FP32 * scale, what, "scale of 8 bits");
        expect(std::fabs(eight(to, ROW, i) - turned_x[i]) <= HALF_STEP * scale, what, "value in 8 bits");
        expect(std::fabs(four_code(to, ROW, i) * four - wanted) <= HALF_STEP * four, what, "value in 12 bits");
        uint16_t narrow;
        k.to_bf16(&wanted, 1, &narrow);
        expect(to.narrow(ROW)[i / BLOCK * BLOCK * TILE + i % BLOCK] == narrow, what, "value in bf16");
        sum = (i % HALF ? sum : 0) + four_code(to, ROW, i);
        if (i % HALF == HALF - 1) expect(to.sums(ROW)[i / HALF * TILE] == sum, what, "sum of half a block");
    }
}

void check_pack(const Kernels& k, const Coded& coded) {
    const int64_t N = 17, K = round_up(200, coded.columns);
    std::vector<float> w = Random(7).normals(N * K), row(K);
    const Panels to = packed(k, coded.coding, w, N);
    const std::string what = at(k, coded.name, K) + "columns: ";
    const int64_t width = round_up(K, BLOCK);
    const bool turns = coded.coding == Coding::Q8;
    for (int64_t n = 0; n < 2 * PANEL; n++) {
        std::vector<double> found(width);
        for (int64_t i = 0; i < width; i++) found[i] = weight(to, n, i);
        if (n >= N) {
            for (const double one : found) expect(one == 0.0, what, "a row that fills up a panel");
            continue;
        }
        std::vector<float> wanted(&w[n * K], &w[n * K] + K);
        wanted.resize(width);
        if (turns) wanted = turned(wanted, width, true);
        decode_row(to, n, row.data());
        const std::vector<double> meant = turns ? turned(found, width) : found;
        for (int64_t i = 0; i < width; i++) {
            const int64_t begin = i / SPAN * SPAN, here = width - begin < SPAN ? width - begin : SPAN;
            const double most = peak(&wanted[begin], here);
            expect(std::fabs(found[i] - wanted[i]) <= 0.51 * most / coded.n_steps, what, "packed weight");
            expect(i >= K || std::fabs(meant[i] - row[i]) <= 2 * FP32 * most, what, "decoded weight");
        }
    }
    for (const float bad : {INF, -INF, NOT_A_NUMBER}) {
        std::vector<float> broken = w;
        broken[40] = bad;
        packed(k, coded.coding, broken, N, false);
    }
}

void check_product(const Kernels& k, const Coded& coded, int64_t M, int64_t N, int64_t n_columns) {
    const int64_t K = round_up(n_columns, coded.columns), stride = N + 3;  // what lies between rows stays as it is
    Random random(M * 1000 + N);
    const std::vector<float> x = random.normals(M * K), w = random.normals(N * K);
    const Activations act = activations(k, x, M);
    const Panels panels = packed(k, coded.coding, w, N);
    std::vector<float> out(M * stride, 7.0f), alone(N);
    k.product(act, M, panels, 0, panels.n_panels(), out.data(), stride, Store::SET);
    const bool is_clean = !uppers_in_use();
    const int64_t width = coded.coding == Coding::Q8 ? round_up(K, BLOCK) : K;  // turned, what fills up counts too
    std::vector<double> wanted(M * stride, 7.0), left(M * width), right(N * width);
    for (int64_t i = 0; i < M * width; i++) left[i] = activation(act, coded.coding, i / width, i % width);
    for (int64_t i = 0; i < N * width; i++) right[i] = weight(panels, i / width, i % width);
    double most = 1.0;
    for (int64_t m = 0; m < M; m++)
        for (int64_t n = 0; n < N; n++) {
            double total = 0.0;
            for (int64_t i = 0; i < width; i++) total += left[m * width + i] * right[n * width + i];
            wanted[m * stride + n] = total;
            most = std::fabs(total) > most ? std::fabs(total) : most;
        }
    const std::string what =
        at(k, coded.name, M) + "rows x " + std::to_string(N) + " x " + std::to_string(K) + " columns: ";
    expect_close(out.data(), wanted.data(), M * stride, FP32 * most, what + "product");
    expect(is_clean, what, "upper halves of registers are left in use");

    std::vector<float> added = out;
    k.product(act, M, panels, 0, panels.n_panels(), added.data(), stride, Store::ADD);
    for (int64_t m = 0; m < M; m++) {
        const float *row = &out[m * stride], *sum = &added[m * stride];
        const Activations one = activations(k, {x.begin() + m * K, x.begin() + (m + 1) * K}, 1);
        k.product(one, 1, panels, 0, panels.n_panels(), alone.data(), N, Store::SET);
        expect(!std::memcmp(alone.data(), row, N * sizeof(float)), what, "a row alone is the same to the bit");
        for (int64_t n = 0; n < stride; n++) expect(sum[n] == (n < N ? 2.0f * row[n] : 7.0f), what, "added to itself");
    }
}

// Whole numbers at both ends of their range, scales of 1: sums no rounding touches, being below 2^24.
void check_exact(const Kernels& k, const Coded& coded) {
    constexpr int64_t M = 17, N = 40, K = 192;
    Random random(3);
    auto between = [&](int64_t i, int lowest, int highest) {
        if (i % HALF < 2) return static_cast<float>(i % HALF ? lowest : highest);
        return static_cast<float>(lowest + std::floor(random.uniform() * (highest - lowest + 1)));
    };
    std::vector<float> x(M * K), w(N * K), out(M * N);
    for (int64_t i = 0; i < M * K; i++) {
        x[i] = between(i, -127, 127);
        if (i % K == 2 && coded.coding != Coding::Q8 && coded.coding != Coding::BF16) x[i] = -127 * 16;
    }
    for (int64_t i = 0; i < N * K; i++) w[i] = between(i, coded.lowest, coded.highest);
    const bool turns = coded.coding == Coding::Q8;  // those are whole numbers once they are turned
    const Panels panels = packed(k, coded.coding, turns ? turned(w, K) : w, N);
    k.product(activations(k, turns ? turned(x, K, true) : x, M), M, panels, 0, panels.n_panels(), out.data(), N,
              Store::SET);
    const std::string what = at(k, coded.name, N);
    for (int64_t m = 0; m < M; m++)
        for (int64_t n = 0; n < N; n++) {
            double total = 0.0;
            for (int64_t i = 0; i < K; i++) total += static_cast<double>(x[m * K + i]) * w[n * K + i];
            expect(out[m * N + n] == total, what, "exact product");
        }
}

// What is not finite makes no number of its own row alone, and what is too small for a scale counts as 0.
void check_ends_of_product(const Kernels& k, const Coded& coded) {
    constexpr int64_t K = 64;
    const Panels panels = packed(k, coded.coding, std::vector<float>(PANEL * K, 1.0f), PANEL);
    std::vector<float> out(2 * PANEL);
    for (const float value : {INF, -INF, NOT_A_NUMBER, 1e-38f, 1e-44f, 0.0f})
        for (const int64_t place : {0, 15, 16, 40, 63}) {
            const bool tiny = std::fabs(value) < 1.0f;
            std::vector<float> x(2 * K, 1.0f);
            for (int64_t i = 0; tiny && i < K; i++) x[i] = 0.0f;
            x[place] = value;
            k.product(activations(k, x, 2), 2, panels, 0, 1, out.data(), PANEL, Store::SET);
            const std::string what = at(k, coded.name, K) + "columns: " + std::to_string(value);
            for (int64_t n = 0; n < PANEL; n++) {
                expect(tiny ? std::fabs(out[n]) <= 1e-37f : !std::isfinite(out[n]), what, " in a row");
                expect(std::fabs(out[PANEL + n] - K) <= 0.1, what, " in another row");
            }
        }
}

}  // namespace

std::vector<uint8_t> q4_0(const std::vector<float>& rows) {
    std::vector<uint8_t> out;
    for (size_t begin = 0; begin < rows.size(); begin += HALF) {
        const float* x = &rows[begin];
        float most = 0.0f;
        for (int64_t i = 0; i < HALF; i++)
            most = std::fabs(x[i]) > most || !std::isfinite(x[i]) ? std::fabs(x[i]) : most;
        const uint16_t half = to_half(most / 7);
        const float scale = half_to_float(half);
        auto code = [&](float value) {
            const float steps = std::nearbyintf(value / scale);
            return steps > 7 ? 15 : steps > -8 ? static_cast<int>(steps) + 8 : 0;
        };
        out.push_back(half & 255);
        out.push_back(half >> 8);
        for (int64_t i = 0; i < HALF / 2; i++) out.push_back(code(x[i]) | code(x[i + HALF / 2]) << 4);
    }
    return out;
}

void check_products(const Kernels& k) {
    for (int h = 0; h < 1 << 16; h++)
        if ((h & 0x7fff) <= 0x7c00 && to_half(half_to_float(h)) != h) expect(false, "fp16 number " + std::to_string(h));
    for (const int64_t n : LENGTHS) check_activations(k, n);
    for (const Coded& coded : CODINGS) {
        check_pack(k, coded);
        for (const int64_t M : {1, 2, 3, 7, 8, 9, 16, 17, 33}) {
            check_product(k, coded, M, 1, 1);
            check_product(k, coded, M, 17, 33);
        }
        for (const int64_t M : {1, 17, 70}) check_product(k, coded, M, 130, 200);
        check_exact(k, coded);
        check_ends_of_product(k, coded);
    }
}

}  // namespace check
