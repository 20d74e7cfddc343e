// A heartbeat at `hz`, watched by a CPL 3 loop that never sleeps: shows every moment the vCPU was away.

#include "runtime/clock.hpp"
#include "runtime/guest.hpp"

namespace workload {

extern "C" const char workload_name[] = "pulse";

namespace {

constinit uint64_t period = 0;
constinit uint64_t first_beat = 0;
constinit uint64_t next_beat = 0;
constinit uint64_t beats = 0;
constinit uint64_t missed = 0;
constinit uint64_t latest = 0;
constinit bool print = false;

// Iterations of the main loop by the highest set bit of their length in TSC ticks.
constexpr uint64_t kBuckets = 64;
constinit uint64_t histogram[kBuckets] = {};

void beat(uint64_t now) {
    const uint64_t late = now - next_beat;
    latest = late > latest ? late : latest;
    ++beats;
    missed += late / period;
    next_beat += (late / period + 1) * period;
    if (print) {
        guest::say("beat", guest::Fields().number("n", beats).number("tsc", now));
    }
}

}  // namespace

void start(const guest::Parameters& parameters, guest::Fields& ready) {
    const uint64_t hz = parameters.number("hz", 100);
    if (hz == 0 || hz > 1000000) {
        guest::fail(guest::Fields().text("reason", "bad_parameter").number("hz", hz));
    }
    period = guest::tsc_khz() * 1000 / hz;
    print = parameters.number("print", 0) != 0;
    ready.number("hz", hz).number("print", print);
}

void step() {
    const uint64_t now = guest::watch().now();
    if (next_beat == 0) {
        first_beat = now + period;
        next_beat = first_beat;
    }
    if (now >= next_beat) {
        beat(now);
    }
    ++histogram[63 - __builtin_clzll(guest::watch().last_gap() | 1)];
}

// hN counts the iterations of 2^N to 2^(N+1)-1 TSC ticks.
void report(guest::Fields& fields) {
    fields.number("beats", beats).number("missed", missed);
    fields.tenths("late_max_us", guest::tenths_of_us(latest));
    for (uint64_t i = 0; i < kBuckets; ++i) {
        if (histogram[i] != 0) {
            const char key[] = {'h', static_cast<char>('0' + i / 10), static_cast<char>('0' + i % 10), '\0'};
            fields.number(key, histogram[i]);
        }
    }
}

bool verify(guest::Fields& failure) {
    if (guest::watch().back_steps() != 0) {
        failure.text("reason", "tsc_went_back");
        return false;
    }
    // Every beat that was due has been given or is counted as missed.
    const uint64_t due = (next_beat - first_beat) / period;
    if (beats + missed != due) {
        failure.text("reason", "lost_beats").number("due", due);
        return false;
    }
    return true;
}

}  // namespace workload
