#include "machine.h"

#include <algorithm>
#include <atomic>
#include <chrono>

namespace smallpress {
namespace {

constexpr int PASSES = 5;
constexpr size_t N_WORDS = size_t{256} << 17;  // of 8 bytes: far more than any cache holds
constexpr int64_t WORDS_A_LINE = LINE / 8;
constexpr int64_t ROUNDS = 2'000'000;

template <typename Work>
double seconds(Work work) {
    const auto began = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

}  // namespace

double read_bandwidth(Pool& pool) {
    Buffer<uint64_t> words(N_WORDS);
    for (size_t i = 0; i < N_WORDS; i += 512) words[i] = i;  // a page never written to is not in memory
    std::atomic<uint64_t> kept{0};
    double best = 0.0;
    for (int pass = 0; pass < PASSES; pass++) {
        const double took = seconds([&] {
            pool.split(N_WORDS, 64, [&](int, int64_t begin, int64_t end) {
                // As the products read.
                const int64_t apart = (end - begin) / STREAMS;
                uint64_t sum = 0;
                for (int64_t i = begin; i < begin + apart; i += WORDS_A_LINE)
                    for (int64_t stream = 0; stream < STREAMS; stream++) {
                        const uint64_t* line = &words[i + stream * apart];
                        __builtin_prefetch(reinterpret_cast<const char*>(line) + AHEAD);
                        for (int64_t j = 0; j < WORDS_A_LINE; j++) sum += line[j];
                    }
                kept += sum;
            });
        });
        best = std::max(best, N_WORDS * sizeof(uint64_t) / took);
    }
    return best;
}

double multiply_adds(Pool& pool, const Kernels& kernels) {
    double best = 0.0;
    for (int pass = 0; pass < PASSES; pass++) {
        std::atomic<int64_t> done{0};
        const double took = seconds([&] { pool.run([&](int) { done += kernels.exercise(ROUNDS); }); });
        best = std::max(best, done / took);
    }
    return best;
}

}  // namespace smallpress
