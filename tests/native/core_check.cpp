// The native core without Python: for processors under emulation, and for sanitizers. Ends with 1 where anything is
// wrong.
//
//     core_check [--no-threads-in-children] [the tables that should be there, the best first]

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstdio>
#include <string>
#include <vector>

#include "check.h"

namespace check {
namespace {
int failures = 0;
}

void expect(bool holds, const std::string& what, const char* detail) {
    if (holds) return;
    if (failures++ < 50) std::printf("WRONG %s%s\n", what.c_str(), detail);
}

int n_failures() { return failures; }

bool uppers_in_use() {
#if defined(__x86_64__)
    constexpr unsigned STATE = 0xd, TELLS_USE = 1 << 2, UPPERS_OF_256 = 1 << 2, UPPERS_OF_512 = 1 << 6;
    unsigned eax, ebx, ecx, edx, low, high;
    if (!__get_cpuid_count(STATE, 1, &eax, &ebx, &ecx, &edx) || !(eax & TELLS_USE)) return false;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
    return low & (UPPERS_OF_256 | UPPERS_OF_512);
#else
    return false;
#endif
}

std::vector<const Kernels*> tables() {
    std::vector<const Kernels*> found;
    for (const char* name : {"scalar", "neon", "dotprod", "i8mm", "avx2", "avx512", "amx"})
        if (smallpress::can_run(name)) found.push_back(&smallpress::kernels(name));
    return found;
}

}  // namespace check

int main(int n_words, char** words) {
    std::string names, wanted;
    for (const check::Kernels* table : check::tables()) names = table->name + (names.empty() ? "" : " " + names);
    std::printf("%s\n", names.c_str());
    check::expect(names.rfind(smallpress::kernels().name, 0) == 0, "the best table is not the one chosen");
    bool threads_in_children = true;
    for (int i = 1; i < n_words; i++) {
        const std::string word = words[i];
        if (word == "--no-threads-in-children")
            threads_in_children = false;
        else
            wanted += (wanted.empty() ? "" : " ") + word;
    }
    check::expect(wanted.empty() || names == wanted, "this processor should run " + wanted);
    for (const check::Kernels* table : check::tables()) {
        check::check_products(*table);
        check::check_kernels(*table);
        check::check_tree(*table);
    }
    check::check_model();
    check::check_pool(threads_in_children);
    std::printf("%d wrong\n", check::n_failures());
    return check::n_failures() ? 1 : 0;
}
