#pragma once

#include <stdint.h>

namespace guest {

// a * b / c with a 128-bit product. The quotient must fit in 64 bits (else #DE).
inline uint64_t scale(uint64_t a, uint64_t b, uint64_t c) {
    uint64_t low, high;
    asm("mulq %3" : "=a"(low), "=d"(high) : "a"(a), "r"(b) : "cc");
    uint64_t quotient, remainder;
    asm("divq %4" : "=a"(quotient), "=d"(remainder) : "a"(low), "d"(high), "r"(c) : "cc");
    return quotient;
}

}  // namespace guest
