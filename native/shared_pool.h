// What works beside torch shares its threads, or, where there are none, one pool for each number of threads; threads of
// Python may ask at once: the second waits for the first.

#pragma once

#include <mutex>

#include "pool.h"
#include "team.h"

namespace smallpress {

class SharedPool {
public:
    explicit SharedPool(int n_threads) : pool_(n_threads) {}

    template <typename Work>
    void split(int64_t n, int64_t grain, Work work) {
        std::lock_guard lock(mutex_);
        split_over(pool_.n_threads(), [this](const std::function<void(int)>& each) { run(each); }, n, grain, work);
    }

private:
    void run(const std::function<void(int)>& each) {
        if (pool_.n_threads() == 1 || !run_on_team(pool_.n_threads(), each)) pool_.run(each);
    }

    Pool pool_;
    std::mutex mutex_;
};

// The pool of so many threads, made when it is first asked for; it lasts as long as the process.
SharedPool& shared_pool(int n_threads);

}  // namespace smallpress
