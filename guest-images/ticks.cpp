// Counts timer interrupts against the TSC, and judges by itself how many a move may lose or add
// (deficit.hpp). KVM writes the kvmclock page anew when a vCPU is restored or its clock is set, so a pause
// in which that page changed is a move; a later update of the page comes without a pause. Without
// kvmclock every pause, a TSC gap longer than gap_us, counts as a move.

#include "deficit.hpp"
#include "runtime/arithmetic.hpp"
#include "runtime/clock.hpp"
#include "runtime/cpu.hpp"
#include "runtime/cpus.hpp"
#include "runtime/guest.hpp"
#include "runtime/interrupts.hpp"
#include "runtime/lapic.hpp"

namespace workload {

extern "C" const char workload_name[] = "ticks";

namespace {

using guest::Fields;
using guest::TimerMode;
using guest::watch;

constexpr uint64_t kWindowUs = 500000;
constexpr uint64_t kWindowsPerMode = 4;

constinit TimerDeficit lapic("lapic", guest::boot_cpu.timer_ticks);
constinit TimerDeficit pit("pit", pit_ticks);

constinit uint64_t lapic_hz = 0;
constinit uint64_t hz = 0;
constinit TimerMode mode = TimerMode::periodic;
constinit bool rotate_modes = false;

// One-shot and deadline keep to a grid, so that they too have a period.
constinit uint64_t grid_period = 0;
constinit uint64_t next_target = 0;
constinit uint64_t seen_interrupts = 0;

constinit Events this_window;
constinit Events last_window;
constinit uint64_t seen_pauses = 0;
constinit uint64_t seen_paused = 0;
constinit uint64_t moves = 0;
constinit bool written_before = false;  // the kvmclock page, at the last look
constinit uint64_t window_start = 0;
constinit uint64_t windows = 0;

void arm_at(uint64_t target) {
    if (mode == TimerMode::deadline) {
        guest::write_msr(guest::kMsrTscDeadline, target);
        return;
    }
    const uint64_t now = guest::rdtsc();
    const uint64_t ticks = target > now ? target - now : 1;
    guest::arm_lapic_timer(static_cast<uint32_t>(guest::scale(ticks, lapic_hz, guest::tsc_khz() * 1000)) + 1);
}

void start_lapic(TimerMode wanted) {
    mode = wanted;
    guest::set_lapic_timer_mode(mode);
    const auto count = static_cast<uint32_t>(lapic_hz / hz);
    watch().beat();
    const uint64_t now = watch().now();
    seen_interrupts = guest::lapic_timer_interrupts();
    if (mode == TimerMode::periodic) {
        guest::arm_lapic_timer(count);
        lapic.restart(now, guest::scale(lapic_hz, 1000000, count));
        return;
    }
    next_target = now + grid_period;
    arm_at(next_target);
    lapic.restart(now, guest::scale(guest::tsc_khz() * 1000, 1000000, grid_period));
}

void rearm() {
    if (mode == TimerMode::periodic || guest::lapic_timer_interrupts() == seen_interrupts) {
        return;
    }
    seen_interrupts = guest::lapic_timer_interrupts();
    const uint64_t now = watch().now();
    const uint64_t behind = now > next_target ? (now - next_target) / grid_period : 0;
    next_target += (behind + 1) * grid_period;
    arm_at(next_target);
}

TimerMode next_mode() {
    switch (mode) {
        case TimerMode::periodic:
            return TimerMode::one_shot;
        case TimerMode::one_shot:
            return guest::has_tsc_deadline() ? TimerMode::deadline : TimerMode::periodic;
        case TimerMode::deadline:
            break;
    }
    return TimerMode::periodic;
}

// kvmclock may step back only where the host does not promise otherwise (its page lacks the stable flag)
// and then by no more than an update of the page corrects. Forward it keeps to the TSC, in a move as well.
class KvmclockCheck {
  public:
    void start() { first_ = last_ = guest::read_kvmclock(); }

    // True when the host has written the page since the last look.
    bool look() {
        constexpr uint64_t kCorrection = 1000000;
        const guest::KvmclockReading reading = guest::read_kvmclock();
        const bool written = reading.version != last_.version;
        if (reading.nanoseconds < last_.nanoseconds) {
            const uint64_t step = last_.nanoseconds - reading.nanoseconds;
            ++back_steps_;
            if (reading.monotone || step > kCorrection) {
                guest::fail(Fields().text("reason", "kvmclock_went_back").number("ns", step));
            }
        }
        const auto clock_us = static_cast<int64_t>(reading.nanoseconds - last_.nanoseconds) / 1000;
        const auto tsc_us = static_cast<int64_t>(guest::us_from_tsc(reading.tsc - last_.tsc));
        const int64_t drift = clock_us > tsc_us ? clock_us - tsc_us : tsc_us - clock_us;
        if (drift > kDriftUs + tsc_us / kDriftShare) {
            guest::fail(Fields()
                            .text("reason", "kvmclock_drift")
                            .signed_number("kvmclock_us", clock_us)
                            .signed_number("tsc_us", tsc_us));
        }
        last_ = reading;
        return written;
    }

    void report(Fields& fields) const {
        const uint64_t tsc_us = guest::us_from_tsc(last_.tsc - first_.tsc);
        const uint64_t clock_us = (last_.nanoseconds - first_.nanoseconds) / 1000;
        fields.signed_number("kvmclock_drift_us", static_cast<int64_t>(clock_us - tsc_us));
        fields.number("kvmclock_back_steps", back_steps_);
    }

  private:
    // Between two looks: what an update of the page corrects, and 500 ppm for hosts that measured the TSC's
    // frequency differently (KVM itself takes 250 ppm for the same).
    static constexpr int64_t kDriftUs = 1000;
    static constexpr int64_t kDriftShare = 2000;

    guest::KvmclockReading first_ = {};
    guest::KvmclockReading last_ = {};
    uint64_t back_steps_ = 0;
};

constinit KvmclockCheck kvmclock;

void note_events() {
    const uint64_t pauses = watch().pauses() - seen_pauses;
    this_window.paused += watch().paused() - seen_paused;
    seen_pauses = watch().pauses();
    seen_paused = watch().paused();
    uint64_t new_moves = pauses;
    if (guest::has_kvmclock()) {
        // The pause may fall between the loop's look at the TSC and this one at the page, or before both.
        const bool written = kvmclock.look();
        new_moves = pauses != 0 && (written || written_before) ? 1 : 0;
        written_before = written && new_moves == 0;
    }
    this_window.moves += new_moves;
    moves += new_moves;
}

void watch_windows() {
    lapic.sample();
    pit.sample();
    const uint64_t now = watch().now();
    if (now - window_start < guest::tsc_from_us(kWindowUs)) {
        return;
    }
    const Events both{this_window.moves + last_window.moves, this_window.paused + last_window.paused};
    lapic.close_window(both);
    pit.close_window(both);
    last_window = this_window;
    this_window = {};
    window_start = now;
    if (++windows % kWindowsPerMode == 0 && rotate_modes) {
        start_lapic(next_mode());
    }
}

}  // namespace

void start(const guest::Parameters& parameters, Fields& ready) {
    const char* mode_name = parameters.word("mode", "periodic");
    const uint64_t gap_us = parameters.number("gap_us", 300);
    hz = parameters.number("hz", 250);
    const uint64_t slack = parameters.number("slack", 0);
    rotate_modes = guest::equal(mode_name, "all");
    const bool deadline = guest::equal(mode_name, "deadline");
    const bool one_shot = guest::equal(mode_name, "oneshot");
    const bool known = rotate_modes || deadline || one_shot || guest::equal(mode_name, "periodic");
    if (hz == 0 || hz > 1000 || !known) {
        guest::fail(Fields().text("reason", "bad_parameter").number("hz", hz).text("mode", mode_name));
    }
    if (deadline && !guest::has_tsc_deadline()) {
        guest::fail(Fields().text("reason", "no_tsc_deadline_timer"));
    }

    lapic.set_slack(slack);
    pit.set_slack(slack);
    lapic_hz = guest::measure_lapic_hz();
    grid_period = guest::tsc_khz() * 1000 / hz;
    watch().set_pause_threshold(guest::tsc_from_us(gap_us));
    if (guest::has_kvmclock()) {
        kvmclock.start();
    }
    start_lapic(deadline ? TimerMode::deadline : one_shot ? TimerMode::one_shot : TimerMode::periodic);
    const uint32_t divisor = guest::start_pit(100);
    pit.restart(guest::rdtsc(), guest::scale(guest::kPitHz, 1000000, divisor));
    window_start = guest::rdtsc();
    ready.text("mode", mode_name).number("hz", hz).number("pit_hz", 100).number("lapic_hz", lapic_hz);
    ready.number("gap_us", gap_us).number("slack", slack);
}

void step() {
    if (watch().back_steps() != 0) {
        guest::fail(Fields().text("reason", "tsc_went_back"));
    }
    rearm();
    note_events();
    watch_windows();
}

void report(Fields& fields) {
    fields.number("moves", moves).number("pauses", watch().pauses());
    fields.number("paused_us", guest::us_from_tsc(watch().paused()));
    if (guest::has_kvmclock()) {
        kvmclock.report(fields);
    }
}

// Judges two more windows first, so that a timer which has just stopped is noticed.
bool verify(Fields& findings) {
    const uint64_t enough = windows + 2;
    while (windows < enough) {
        watch().beat();
        step();
    }
    const uint64_t now = watch().now();
    const Events events{moves, watch().paused()};
    findings.number("lapic_ticks", lapic.counted()).number("lapic_expected", lapic.expected(now));
    findings.number("lapic_lost", lapic.lost()).number("lapic_extra", lapic.extra());
    findings.number("lapic_allowance", lapic.allowance(events));
    findings.number("pit_ticks", pit.counted()).number("pit_expected", pit.expected(now));
    findings.number("pit_lost", pit.lost()).number("pit_extra", pit.extra());
    findings.number("pit_allowance", pit.allowance(events)).number("extra_allowance", moves);
    findings.number("windows", windows);
    return true;
}

}  // namespace workload
