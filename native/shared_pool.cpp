#include "shared_pool.h"

#include <map>

namespace smallpress {

SharedPool& shared_pool(int n_threads) {
    static std::mutex mutex;
    static auto& pools = *new std::map<int, SharedPool>;
    std::lock_guard lock(mutex);
    return pools.try_emplace(n_threads, n_threads).first->second;
}

}  // namespace smallpress
