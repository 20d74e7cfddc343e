#pragma once

#include <stdint.h>

namespace guest {

// Fills the IDT. Nothing may fault before.
void install_handlers();

// Masks the PICs, turns the boot CPU's LAPIC on, routes the serial port's interrupt, enables interrupts.
void start_interrupts();

inline constexpr uint64_t kPitHz = 1193182;

// PIT channel 0, mode 2, through IOAPIC pin 2. Returns the divisor in effect.
uint32_t start_pit(uint64_t hz);

// Interrupts taken so far.
uint64_t pit_interrupts();

}  // namespace guest
