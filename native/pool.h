// A pool of threads that waits by spinning for a moment and then parks, and that survives fork().

#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace smallpress {

class Pool {
public:
    explicit Pool(int n_threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int n_threads() const { return n_threads_; }

    // Calls work(thread) once on each of n_threads threads, the caller being thread 0; returns when all are done.
    // The first exception thrown by any of them is thrown again here. Not to be called by two threads at once.
    void run(const std::function<void(int)>& work);

    // run() over [0, n): each thread takes one contiguous piece, as equal as can be, in steps of `grain`.
    void split(int64_t n, int64_t grain, const std::function<void(int thread, int64_t begin, int64_t end)>& work);

private:
    // In a forked child: takes what belongs to the parent's threads for gone, without a destructor's touch. Detaching
    // one would hit whichever thread has its handle by now; a condition with waiters cannot be destroyed.
    void forget();
    void start();
    void serve(int thread, uint64_t seen);
    void call(int thread);

    const int n_threads_;
    int64_t owner_ = 0;  // the process the threads belong to; a forked child has none and starts its own
    std::vector<std::thread> threads_;
    std::atomic<uint64_t> round_{0};  // goes up with every run()
    std::atomic<int> n_busy_{0};
    std::atomic<bool> stop_{false};
    std::atomic<int> n_parked_{0};
    const std::function<void(int)>* work_ = nullptr;
    std::exception_ptr failure_;
    std::mutex mutex_;
    std::condition_variable wake_;
};

// The same over the threads of any `run`.
void split_over(int n_threads, const std::function<void(const std::function<void(int)>&)>& run, int64_t n,
                int64_t grain, const std::function<void(int thread, int64_t begin, int64_t end)>& work);

}  // namespace smallpress
