// One pool for each number of threads, that threads of Python may ask at once: the second waits for the first.

#pragma once

#include <mutex>

#include "pool.h"

namespace smallpress {

class SharedPool {
public:
    explicit SharedPool(int n_threads) : pool_(n_threads) {}

    template <typename Work>
    void split(int64_t n, int64_t grain, Work work) {
        std::lock_guard lock(mutex_);
        pool_.split(n, grain, work);
    }

private:
    Pool pool_;
    std::mutex mutex_;
};

// The pool of so many threads, made when it is first asked for; it lasts as long as the process.
SharedPool& shared_pool(int n_threads);

}  // namespace smallpress
