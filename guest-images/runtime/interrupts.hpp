#pragma once

#include <stdint.h>

namespace guest {

// Fills the IDT. Nothing may fault before.
void install_handlers();

// Masks the PICs, turns the LAPIC on, routes the serial port's interrupt, enables interrupts.
void start_interrupts();

inline constexpr uint64_t kPitHz = 1193182;

// PIT channel 0, mode 2, through IOAPIC pin 2. Returns the divisor in effect.
uint32_t start_pit(uint64_t hz);

enum class TimerMode : uint32_t { one_shot = 0, periodic = 1 << 17, deadline = 2 << 17 };

// The LAPIC timer with divide configuration 1. In deadline mode it is armed by write_msr(msr_tsc_deadline).
void set_lapic_timer_mode(TimerMode mode);
void arm_lapic_timer(uint32_t count);
uint32_t lapic_timer_count();
bool has_tsc_deadline();

inline constexpr uint32_t kMsrTscDeadline = 0x6e0;

// Interrupts taken so far.
uint64_t lapic_timer_interrupts();
uint64_t pit_interrupts();

}  // namespace guest
