// A pool that Python holds, and that threads of Python may ask at once: the second waits for the first.

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

}  // namespace smallpress
