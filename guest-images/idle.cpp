// Sleeps in HLT; a 100 Hz LAPIC timer wakes it. Its gaps are its sleep: about one timer period.

#include "runtime/clock.hpp"
#include "runtime/cpu.hpp"
#include "runtime/guest.hpp"
#include "runtime/lapic.hpp"
#include "runtime/serial.hpp"

namespace workload {

extern "C" const char workload_name[] = "idle";

namespace {

constinit uint64_t wakeups = 0;

}  // namespace

void start(const guest::Parameters& parameters, guest::Fields& ready) {
    const uint64_t hz = parameters.number("hz", 100);
    if (hz == 0 || hz > 1000) {
        guest::fail(guest::Fields().text("reason", "bad_parameter").number("hz", hz));
    }
    guest::start_periodic_timer(hz);
    ready.number("hz", hz);
}

void step() {
    // A line of output, which leaves byte by byte, should not take a timer period for each.
    if (guest::serial::busy()) {
        return;
    }
    guest::halt();
    ++wakeups;
}

void report(guest::Fields& fields) {
    fields.number("wakeups", wakeups).number("timer_ticks", guest::lapic_timer_interrupts());
}

// The timer that wakes it still ticks: waited for awake, since a sleep without it has no end.
bool verify(guest::Fields& findings) {
    const uint64_t before = guest::lapic_timer_interrupts();
    const uint64_t begin = guest::watch().now();
    while (guest::lapic_timer_interrupts() == before) {
        guest::watch().beat();
        if (guest::watch().now() - begin > guest::tsc_from_us(2000000)) {
            findings.text("reason", "timer_stopped");
            return false;
        }
    }
    return true;
}

}  // namespace workload
