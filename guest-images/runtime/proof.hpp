#pragma once

#include <stdint.h>

namespace guest {

// Memory that nobody can know in advance: the host names a seed after the guest has started, the guest
// fills pages from it, and later proves from memory that they are still there. README.md gives the
// functions; tests/guests/proof.py computes the same hash.
namespace proof {

inline constexpr uint64_t kPages = 64;

void mark(uint64_t seed);

struct Result {
    bool marked;  // false: there was no mark yet, and nothing else is set
    bool intact;
    uint64_t seed;
    uint64_t hash;
};

Result check();

}  // namespace proof
}  // namespace guest
