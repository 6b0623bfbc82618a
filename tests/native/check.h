// What the checks of the core share: numbers that are the same on every machine, and a count of what is wrong.

#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels.h"

namespace check {

using smallpress::Kernels;

// Named error budgets; tests/unit/native/test_kernels.py says the same in Python.
constexpr double HALF_STEP = 0.5 + 2e-2;  // of a scale: how far rounding moves a value of up to 16 of fp32's 24 bits
constexpr double FP32 = 3e-6;             // relative: sums in another order, an exponential good to 2 ulp
constexpr double BF16 = 0x1p-8;

constexpr float INF = std::numeric_limits<float>::infinity(), NOT_A_NUMBER = std::numeric_limits<float>::quiet_NaN();
constexpr int64_t LENGTHS[] = {1, 4, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 576};

// Counts a failure and prints it, `what` and the detail of it, unless `holds`.
void expect(bool holds, const std::string& what, const char* detail = "");
int n_failures();

// |found - wanted| <= budget for all n; names the first that is not.
template <typename T, typename U>
void expect_close(const T* found, const U* wanted, int64_t n, double budget, const std::string& what) {
    for (int64_t i = 0; i < n; i++) {
        const double a = found[i], b = wanted[i], error = a < b ? b - a : a - b;
        if (error <= budget) continue;  // not so for NaN
        const std::string numbers = std::to_string(a) + ", wanted " + std::to_string(b);
        return expect(false, what + ": [" + std::to_string(i) + "] is " + numbers);
    }
}

// Whether the upper halves of vector registers are in use, for which all code for any processor waits; false where it
// cannot be told.
bool uppers_in_use();

// Every table this processor can run, the scalar one first.
std::vector<const Kernels*> tables();

// Numbers of about unit size, some of them nearly 0.
class Random {
public:
    explicit Random(uint32_t seed) : bits_(seed) {}
    double uniform() { return bits_() * 0x1p-32; }
    float normal() { return static_cast<float>(uniform() + uniform() + uniform() + uniform() - 2.0) * 1.7f; }
    std::vector<float> normals(int64_t n) {
        std::vector<float> out(n);
        for (float& x : out) x = normal();
        return out;
    }

private:
    std::mt19937 bits_;
};

inline std::string at(const Kernels& k, const char* what, int64_t n) {
    return std::string(k.name) + " " + what + " of " + std::to_string(n) + " ";
}

// The largest of n numbers without their signs.
inline double peak(const float* x, int64_t n) {
    double best = 0.0;
    for (int64_t i = 0; i < n; i++) best = std::fabs(x[i]) > best ? std::fabs(x[i]) : best;
    return best;
}

// Rows of floats, of whole blocks of 32, as Q4_0 in a file: f16 scale, 16 bytes of two codes each.
std::vector<uint8_t> q4_0(const std::vector<float>& rows);

void check_products(const Kernels& k);
void check_kernels(const Kernels& k);
void check_tree(const Kernels& k);
void check_model();
// `threads_in_children`: whether a forked child may start threads, which neither QEMU nor TSan can follow.
void check_pool(bool threads_in_children);

}  // namespace check
