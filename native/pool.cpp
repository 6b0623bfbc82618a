#include "pool.h"

#include <algorithm>
#include <chrono>
#include <new>

#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace smallpress {
namespace {

// How long a thread looks for the next piece of work before it parks: the phases of one token are microseconds apart,
// and a processor shared with others must not be kept busy by waiting.
constexpr auto PATIENCE = std::chrono::microseconds(2000);
constexpr int LOOKS_BETWEEN_CLOCKS = 64;

void relax() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// True when `done` became so within PATIENCE.
template <typename Done>
bool spin(Done done) {
    const auto until = std::chrono::steady_clock::now() + PATIENCE;
    do {
        for (int i = 0; i < LOOKS_BETWEEN_CLOCKS; i++) {
            if (done()) return true;
            relax();
        }
    } while (std::chrono::steady_clock::now() < until);
    return done();
}

}  // namespace

Pool::Pool(int n_threads) : n_threads_(std::max(1, n_threads)) {}

Pool::~Pool() {
    if (owner_ != getpid()) {
        forget();
        return;
    }
    {
        std::lock_guard lock(mutex_);
        stop_ = true;
        round_++;
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
}

void Pool::forget() {
    new (&threads_) std::vector<std::thread>;
    new (&mutex_) std::mutex;
    new (&wake_) std::condition_variable;
    n_parked_ = 0;
    n_busy_ = 0;
}

void Pool::start() {
    if (owner_ == getpid()) return;
    forget();
    owner_ = getpid();
    for (int thread = 1; thread < n_threads_; thread++)
        threads_.emplace_back([this, thread, seen = round_.load()] { serve(thread, seen); });
}

void Pool::call(int thread) {
    try {
        (*work_)(thread);
    } catch (...) {
        std::lock_guard lock(mutex_);
        if (!failure_) failure_ = std::current_exception();
    }
}

void Pool::serve(int thread, uint64_t seen) {
    for (;;) {
        auto fresh = [&] { return round_.load(std::memory_order_acquire) != seen; };
        if (!spin(fresh)) {
            std::unique_lock lock(mutex_);
            n_parked_++;
            wake_.wait(lock, fresh);
            n_parked_--;
        }
        if (stop_) return;
        seen = round_.load(std::memory_order_acquire);
        call(thread);
        n_busy_.fetch_sub(1, std::memory_order_acq_rel);
    }
}

void Pool::run(const std::function<void(int)>& work) {
    work_ = &work;
    failure_ = nullptr;
    if (n_threads_ > 1) {
        start();
        n_busy_.store(n_threads_ - 1, std::memory_order_release);
        round_.fetch_add(1, std::memory_order_acq_rel);
        // A thread counts itself parked under the mutex before it looks a last time, so none can be missed.
        std::lock_guard lock(mutex_);
        if (n_parked_ > 0) wake_.notify_all();
    }
    call(0);
    if (n_threads_ > 1) {
        auto done = [&] { return n_busy_.load(std::memory_order_acquire) == 0; };
        while (!spin(done)) std::this_thread::yield();
    }
    if (failure_) std::rethrow_exception(failure_);
}

void Pool::split(int64_t n, int64_t grain, const std::function<void(int, int64_t, int64_t)>& work) {
    split_over(n_threads_, [this](const std::function<void(int)>& each) { run(each); }, n, grain, work);
}

void split_over(int n_threads, const std::function<void(const std::function<void(int)>&)>& run, int64_t n,
                int64_t grain, const std::function<void(int, int64_t, int64_t)>& work) {
    const int64_t n_grains = (n + grain - 1) / grain;
    if (n_grains <= 1) {
        if (n > 0) work(0, 0, n);
        return;
    }
    run([&](int thread) {
        const int64_t begin = n_grains * thread / n_threads * grain;
        const int64_t end = std::min(n, n_grains * (thread + 1) / n_threads * grain);
        if (begin < end) work(thread, begin, end);
    });
}

}  // namespace smallpress
