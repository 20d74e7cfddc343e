#pragma once

#include <stdint.h>

namespace guest {

// The local APIC of the CPU that calls: registers in memory (xAPIC), or MSRs after use_x2apic(). Register
// offsets and encodings are those of SDM volume 3 chapter 10.

bool has_x2apic();
// For this CPU and all that start after it; before its start_lapic().
void use_x2apic();

// Turns it on with its timer and pins masked.
void start_lapic();

enum class TimerMode : uint32_t { one_shot = 0, periodic = 1 << 17, deadline = 2 << 17 };

// The LAPIC timer with divide configuration 1. In deadline mode it is armed by write_msr(kMsrTscDeadline).
void set_lapic_timer_mode(TimerMode mode);
void arm_lapic_timer(uint32_t count);
uint32_t lapic_timer_count();
bool has_tsc_deadline();

inline constexpr uint32_t kMsrTscDeadline = 0x6e0;

// Interrupts of the timer that the boot CPU has taken.
uint64_t lapic_timer_interrupts();

// Interprocessor interrupts, section 10.6. A fixed interrupt is edge triggered.
void send_ipi(uint32_t apic_id, uint32_t vector);
void send_init(uint32_t apic_id);
void send_startup(uint32_t apic_id, uint32_t page);
// The non-maskable interrupt to all CPUs but this one, which stops them for good (traps.S).
void stop_other_cpus();

}  // namespace guest
