// The pool of threads: many rounds, waits long enough to park, faults in the work, and life after fork().

#include <atomic>
#include <chrono>
#include <memory>
#include <new>
#include <stdexcept>
#include <system_error>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "pool.h"

namespace check {
namespace {

using smallpress::Pool;

// Ten times what threads spin before they park.
void rest() { std::this_thread::sleep_for(std::chrono::milliseconds(2)); }

// Numbers without any guard of their own: what one thread writes in a round, another reads in the next.
bool rounds_are_right(Pool& pool, int n_rounds) {
    constexpr int64_t N = 37;
    std::vector<int64_t> here(N, 0), before(N, 0);
    for (int round = 0; round < n_rounds; round++) {
        pool.split(N, 1, [&](int, int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; i++) here[i] = before[(i + 11) % N] + 1;
        });
        here.swap(before);
    }
    for (const int64_t count : before)
        if (count != n_rounds) return false;
    return true;
}

bool every_thread_is_called_once(Pool& pool) {
    std::vector<int> calls(pool.n_threads(), 0);
    pool.run([&](int thread) { calls[thread]++; });
    return calls == std::vector<int>(pool.n_threads(), 1);
}

bool faults_come_out(Pool& pool) {
    for (int at = 0; at < pool.n_threads(); at++) {
        try {
            pool.run([&](int thread) {
                if (thread == at) throw std::runtime_error("a fault");
            });
            return false;
        } catch (const std::runtime_error&) {
        }
    }
    return every_thread_is_called_once(pool);
}

// What `work` says in a forked child, which ends without the destructors of what it has a copy of. One that waits
// forever is wrong as well.
template <typename Work>
bool in_a_child(Work work) {
    const pid_t child = fork();
    if (child == 0) {
        alarm(60);
        _exit(work() ? 0 : 1);
    }
    int status = 1;
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

// The system gives a child's new threads the stacks, and so the handles, that its parent's threads had.
bool other_threads_stay_whole(Pool& pool) {
    std::atomic<bool> stop{false};
    std::vector<std::thread> others;
    for (int i = 0; i < 4; i++)
        others.emplace_back([&] {
            while (!stop) std::this_thread::yield();
        });
    bool right = rounds_are_right(pool, 20);
    stop = true;
    for (std::thread& one : others) {
        try {
            one.join();
        } catch (const std::system_error&) {
            right = false;
            new (&one) std::thread;
        }
    }
    return right;
}

// A pool whose threads are parked, destroyed by a process they are not of.
bool ends_in_a_child() {
    auto pool = std::make_unique<Pool>(3);
    const bool called = every_thread_is_called_once(*pool);
    rest();
    const bool ended = in_a_child([&] {
        pool.reset();
        return true;
    });
    return called && ended && every_thread_is_called_once(*pool);
}

}  // namespace

void check_pool(bool threads_in_children) {
    for (const int n_threads : {1, 2, 4}) {
        Pool pool(n_threads);
        const std::string what = "pool of " + std::to_string(n_threads) + ": ";
        expect(rounds_are_right(pool, 100), what + "many rounds");
        expect(every_thread_is_called_once(pool), what + "each thread is called once");
        expect(faults_come_out(pool), what + "faults come out");
        for (int i = 0; i < 5; i++) {
            rest();
            expect(rounds_are_right(pool, 3), what + "rounds after a rest");
        }
        expect(ends_in_a_child(), what + "destroyed in a child");
        if (threads_in_children) {
            expect(in_a_child([&] { return rounds_are_right(pool, 20) && faults_come_out(pool); }),
                   what + "in a child");
            expect(in_a_child([&] { return other_threads_stay_whole(pool); }), what + "beside others in a child");
        }
        expect(rounds_are_right(pool, 20), what + "after a child");
    }
}

}  // namespace check
