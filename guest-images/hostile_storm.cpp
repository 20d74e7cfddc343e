// As many interrupts as can be had: LAPIC timer and PIT at rates that nobody asks for, the serial port's
// transmitter, whose interrupt comes each time it is enabled, and IPIs to itself.

#include "hostile_mode.hpp"
#include "runtime/clock.hpp"
#include "runtime/cpu.hpp"
#include "runtime/cpus.hpp"
#include "runtime/interrupts.hpp"
#include "runtime/lapic.hpp"

namespace hostile {

namespace {

using guest::Fields;

constexpr uint16_t kInterruptEnable = SERIAL_DATA + 1;
constexpr uint8_t kReceive = 1;
constexpr uint8_t kTransmit = 2;

constinit uint64_t sent = 0;

void start(const guest::Parameters& parameters, Fields& ready) {
    const uint64_t hz = parameters.number("hz", 100000);
    guest::start_pit(hz);
    guest::start_periodic_timer(hz);
    ready.number("hz", hz);
}

void step() {
    // Off as a whole: the line falls, so that what waits makes another edge.
    guest::out8(kInterruptEnable, 0);
    guest::out8(kInterruptEnable, kReceive | kTransmit);
    guest::send_ipi(0, VECTOR_IPI);
    ++sent;
}

void report(Fields& fields) {
    fields.number("sent", sent).number("ipis", guest::boot_cpu.ipis);
    fields.number("timer_ticks", guest::lapic_timer_interrupts()).number("pit_ticks", pit_ticks);
}

// Every IPI has come, and both timers still run.
bool verify(Fields& findings) {
    const uint64_t timer = guest::lapic_timer_interrupts();
    const uint64_t pit = pit_ticks;
    const uint64_t begin = guest::watch().now();
    while (guest::boot_cpu.ipis != sent || guest::lapic_timer_interrupts() == timer || pit_ticks == pit) {
        guest::watch().beat();
        if (guest::watch().now() - begin > guest::tsc_from_us(10000000)) {
            findings.text("reason", "lost_interrupt")
                .number("sent", sent)
                .number("ipis", guest::boot_cpu.ipis);
            return false;
        }
    }
    return true;
}

}  // namespace

const Mode storm_mode{"storm", start, step, report, verify};

}  // namespace hostile
