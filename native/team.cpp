#include "team.h"

#include <exception>
#include <mutex>

#include <dlfcn.h>

namespace smallpress {
namespace {

// What compilers call for a parallel region: of GCC's runtime, and offered by those of LLVM and Intel on Linux.
struct OpenMP {
    void (*parallel)(void (*region)(void*), void* data, unsigned n_threads, unsigned flags);
    int (*thread)();
    int (*n_threads)();

    OpenMP() {
        find(parallel, "GOMP_parallel");
        find(thread, "omp_get_thread_num");
        find(n_threads, "omp_get_num_threads");
    }
    bool is_there() const { return parallel && thread && n_threads; }

private:
    template <typename Function>
    static void find(Function& function, const char* name) {
        function = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
    }
};

struct Region {
    const OpenMP& openmp;
    const int n_threads;
    const std::function<void(int)>& work;
    std::mutex mutex = {};
    std::exception_ptr failure = nullptr;

    // A team may be smaller than asked for.
    void take() {
        try {
            for (int thread = openmp.thread(); thread < n_threads; thread += openmp.n_threads()) work(thread);
        } catch (...) {
            std::lock_guard lock(mutex);
            if (!failure) failure = std::current_exception();
        }
    }
};

}  // namespace

bool run_on_team(int n_threads, const std::function<void(int)>& work) {
    static thread_local OpenMP openmp;
    if (!openmp.is_there()) openmp = OpenMP();  // torch may have come since
    if (!openmp.is_there()) return false;
    Region region{openmp, n_threads, work};
    openmp.parallel([](void* given) { static_cast<Region*>(given)->take(); }, &region, n_threads, 0);
    if (region.failure) std::rethrow_exception(region.failure);
    return true;
}

}  // namespace smallpress
