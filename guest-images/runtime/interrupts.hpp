#pragma once

#include <stdint.h>

// Interrupts of the PIT taken so far (traps.S).
extern "C" const volatile uint64_t pit_ticks;

namespace guest {

// Fills the IDT. Nothing may fault before.
void install_handlers();

// Masks the PICs, turns the boot CPU's LAPIC on, routes the serial port's interrupt, enables interrupts.
void start_interrupts();

// Sends an edge-triggered, active-high pin of the IOAPIC to the boot CPU.
void route_edge(uint32_t pin, uint32_t vector);

inline constexpr uint64_t kPitHz = 1193182;

// PIT channel 0, mode 2, through IOAPIC pin 2. Returns the divisor in effect.
uint32_t start_pit(uint64_t hz);

}  // namespace guest
