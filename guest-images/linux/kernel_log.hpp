#pragma once

#include <cstdint>

namespace selfcheck {

// What the kernel takes the TSC's frequency to be, from its log ("tsc: Detected 2000.000 MHz processor"); 0
// when it does not say.
uint64_t kernel_tsc_khz();

}  // namespace selfcheck
