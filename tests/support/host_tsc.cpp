// Prints the TSC of the machine it runs on: tests on emulated hosts show with it that they differ.

#include <cstdio>

#include <x86intrin.h>

int main() {
    std::printf("%llu\n", static_cast<unsigned long long>(__rdtsc()));
}
