#pragma once

#include <stdint.h>

#include "runtime/abi.h"
#include "runtime/text.hpp"

namespace guest {

// One CPU: its ring-0 stack, which grows down from the end, and its data below (offsets: abi.h).
struct alignas(CPU_SIZE) Cpu {
    volatile uint64_t timer_ticks;  // interrupts of its LAPIC timer
    volatile uint64_t ipis;         // interprocessor interrupts
    void (*entry)(Cpu&);
    uint64_t user_stack;
    uint32_t task_selector;
    uint32_t index;  // and APIC id; 0 is the boot CPU
    volatile bool online;
    uint8_t stack[CPU_SIZE - 41];
};

extern "C" Cpu boot_cpu;

// What the other CPUs do for ever, at CPL 3 with interrupts on.
using Work = void (*)(Cpu&);

// How many to use, with the boot CPU: `cpus=N`, or as many as CPUID says, at most MAX_CPUS.
uint32_t count_cpus(const Parameters& parameters);
// Starts those with the APIC ids 1 to count - 1 by INIT and start-up IPI. One that does not come ends the
// guest with FAIL.
void start_cpus(uint32_t count, Work work);

inline void relax() {
    asm volatile("pause" : : : "memory");
}

}  // namespace guest
