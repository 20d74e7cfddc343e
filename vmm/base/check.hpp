// VERIFY(condition): an invariant of ours. Never compiled out; never used on input from a peer, host or
// guest.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace vmm::detail {

[[noreturn]] inline void verify_failed(const char* condition, const char* file, int line) {
    std::fprintf(stderr, "vmm: broken invariant: %s (%s:%d)\n", condition, file, line);
    std::abort();
}

}  // namespace vmm::detail

#define VERIFY(condition) \
    (static_cast<bool>(condition) ? void(0) : ::vmm::detail::verify_failed(#condition, __FILE__, __LINE__))
