// The threads of the OpenMP that torch has brought into the process. Between torch's loops they spin for milliseconds:
// a second set of threads would have to take the processor from them.

#pragma once

#include <functional>

namespace smallpress {

// Calls work(thread) once for each of n_threads; the first exception thrown by any is thrown again here. False, and
// nothing done, where the process has no OpenMP.
bool run_on_team(int n_threads, const std::function<void(int)>& work);

}  // namespace smallpress
