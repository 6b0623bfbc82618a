#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif
#if defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include "kernels.h"

namespace smallpress {

const Kernels& kernels_scalar();
#if defined(__x86_64__)
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();
const Kernels& kernels_amx();
#endif
#if defined(__aarch64__)
const Kernels& kernels_neon();
const Kernels& kernels_dotprod();
const Kernels& kernels_i8mm();
#endif

namespace {

#if defined(__x86_64__)
bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

// Tile registers are large, so the system must be asked for them once before a process may use them.
bool has_amx() {
#if defined(__linux__)
    constexpr unsigned AMX_BF16 = 1u << 22, AMX_TILE = 1u << 24, AMX_INT8 = 1u << 25,
                       AMX = AMX_BF16 | AMX_TILE | AMX_INT8;
    constexpr int REQUEST_STATE = 0x1023, TILE_DATA = 18;  // arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
    unsigned a, b, c, d;
    return has_avx512() && __builtin_cpu_supports("avx512bf16") && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
           (d & AMX) == AMX && syscall(SYS_arch_prctl, REQUEST_STATE, TILE_DATA) == 0;
#else
    return false;
#endif
}
#endif

#if defined(__aarch64__)
#if defined(__APPLE__)
bool has_feature(const char* name) {
    int has = 0;
    size_t size = sizeof has;
    return sysctlbyname(name, &has, &size, nullptr, 0) == 0 && has;
}
#endif

bool has_dotprod() {
#if defined(__linux__)
    constexpr unsigned long DOTPROD = 1 << 20;  // HWCAP_ASIMDDP
    return getauxval(AT_HWCAP) & DOTPROD;
#elif defined(__APPLE__)
    return has_feature("hw.optional.arm.FEAT_DotProd");
#else
    return false;
#endif
}

bool has_i8mm() {
#if defined(__linux__)
    constexpr unsigned long I8MM = 1 << 13;  // HWCAP2_I8MM
    return has_dotprod() && getauxval(AT_HWCAP2) & I8MM;
#elif defined(__APPLE__)
    return has_dotprod() && has_feature("hw.optional.arm.FEAT_I8MM");
#else
    return false;
#endif
}
#endif

struct Choice {
    const char* name;
    bool runs;
    const Kernels& (*table)();
};

// The best first.
const Choice* choices(int& n) {
    static const Choice all[] = {
#if defined(__x86_64__)
        {"amx", has_amx(), kernels_amx},
        {"avx512", has_avx512(), kernels_avx512},
        {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"),
         kernels_avx2},
#endif
#if defined(__aarch64__)
        {"i8mm", has_i8mm(), kernels_i8mm},
        {"dotprod", has_dotprod(), kernels_dotprod},
        {"neon", true, kernels_neon},  // a part of the architecture
#endif
        {"scalar", true, kernels_scalar},
    };
    n = sizeof all / sizeof *all;
    return all;
}

const Choice* find(const std::string& name) {
    int n;
    const Choice* all = choices(n);
    for (int i = 0; i < n; i++)
        if (all[i].runs && (name.empty() || name == all[i].name)) return &all[i];
    return nullptr;
}

}  // namespace

bool can_run(const std::string& name) { return !name.empty() && find(name); }

const Kernels& kernels(const std::string& name) {
    const Choice* found = find(name);
    if (!found) throw std::invalid_argument("this processor has no kernels named " + name + "; scalar always works");
    return found->table();
}

}  // namespace smallpress
