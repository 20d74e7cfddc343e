#include "clock.hpp"

#include <x86intrin.h>
#include <ctime>
#include <thread>

#include <sched.h>

#include "kernel_log.hpp"
#include "runtime/guest.hpp"

namespace selfcheck {
namespace {

constexpr int64_t kPeriod = 10'000'000;  // ns
// What two looks may differ by: what an update of kvmclock corrects, and 500 ppm for hosts that measured the
// TSC's frequency differently (KVM itself takes 250 ppm for the same).
constexpr int64_t kDrift = 1'000'000;  // ns
constexpr int64_t kDriftShare = 2000;

int64_t read_clock(clockid_t clock) {
    timespec time = {};
    clock_gettime(clock, &time);
    return time.tv_sec * 1'000'000'000 + time.tv_nsec;
}

void sleep_until(int64_t monotonic) {
    const timespec time = {monotonic / 1'000'000'000, monotonic % 1'000'000'000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nullptr) != 0) {
    }
}

void raise(std::atomic<int64_t>& highest, int64_t value) {
    int64_t seen = highest.load();
    while (value > seen && !highest.compare_exchange_weak(seen, value)) {
    }
}

uint64_t microseconds(int64_t nanoseconds) {
    return static_cast<uint64_t>(nanoseconds / 1000);
}

int64_t magnitude(int64_t value) {
    return value < 0 ? -value : value;
}

}  // namespace

Clock::Sample Clock::sample() {
    Sample best;
    // A vCPU that loses its CPU between two readings makes the sample wide: the best of three is kept.
    for (int attempt = 0; attempt < 3; ++attempt) {
        Sample one;
        one.monotonic = read_clock(CLOCK_MONOTONIC);
        one.tsc = __rdtsc();
        one.realtime = read_clock(CLOCK_REALTIME);
        one.width = read_clock(CLOCK_MONOTONIC) - one.monotonic;
        if (attempt == 0 || one.width < best.width) {
            best = one;
        }
    }
    return best;
}

int64_t Clock::tsc_ns(uint64_t ticks) const {
    return static_cast<int64_t>(static_cast<unsigned __int128>(ticks) * 1'000'000 / tsc_khz_);
}

void Clock::compare(const Sample& before, const Sample& now) {
    if (now.monotonic < before.monotonic) {
        guest::fail(guest::Fields()
                        .text("reason", "monotonic_went_back")
                        .signed_number("ns", before.monotonic - now.monotonic));
    }
    if (now.tsc < before.tsc) {
        guest::fail(guest::Fields().text("reason", "tsc_went_back").number("by", before.tsc - now.tsc));
    }
    const int64_t elapsed = now.monotonic - before.monotonic;
    const int64_t real = now.realtime - before.realtime;
    const int64_t tolerance = kDrift + elapsed / kDriftShare + before.width + now.width;
    if (magnitude(real - elapsed) > tolerance) {
        guest::fail(guest::Fields()
                        .text("reason", "realtime_stepped")
                        .signed_number("realtime_us", real / 1000)
                        .signed_number("monotonic_us", elapsed / 1000));
    }
    if (tsc_khz_ == 0) {
        return;
    }
    const int64_t tsc = tsc_ns(now.tsc - before.tsc);
    if (magnitude(tsc - elapsed) > tolerance) {
        guest::fail(guest::Fields()
                        .text("reason", "monotonic_drift")
                        .signed_number("monotonic_us", elapsed / 1000)
                        .signed_number("tsc_us", tsc / 1000));
    }
    tsc_drift_ = tsc_ns(now.tsc - first_.tsc) - (now.monotonic - first_.monotonic);
}

void Clock::run() {
    // Above the other services, so that a gap is the machine's and not the scheduler's.
    const sched_param priority = {.sched_priority = 1};
    sched_setscheduler(0, SCHED_FIFO, &priority);
    Sample before = first_;
    for (uint64_t number = 1;; ++number) {
        const int64_t due = first_.monotonic + static_cast<int64_t>(number) * kPeriod;
        sleep_until(due);
        const Sample now = sample();
        compare(before, now);
        if (now.monotonic < due) {
            guest::fail(
                guest::Fields().text("reason", "woke_early").signed_number("ns", due - now.monotonic));
        }
        raise(latest_wakeup_, now.monotonic - due);
        raise(longest_, now.monotonic - before.monotonic - kPeriod);
        raise(longest_ever_, now.monotonic - before.monotonic - kPeriod);
        before = now;
        ticks_ = number;
        if (print_every_ != 0 && number % print_every_ == 0) {
            guest::say("tick", guest::Fields().number("n", number));
        }
    }
}

void Clock::start(const guest::Parameters& parameters, guest::Fields& ready) {
    tsc_khz_ = kernel_tsc_khz();
    print_every_ = parameters.number("godwit.print", 0);
    ready.number("tsc_khz", tsc_khz_).number("print", print_every_);
    first_ = sample();
    std::thread([this] { run(); }).detach();
}

void Clock::report(guest::Fields& counters) const {
    counters.number("ticks", ticks_).number("late_max_us", microseconds(latest_wakeup_));
    counters.signed_number("tsc_drift_us", tsc_drift_ / 1000);
}

bool Clock::verify(guest::Fields& findings) {
    const int64_t elapsed = read_clock(CLOCK_MONOTONIC) - first_.monotonic;
    const auto due = static_cast<uint64_t>(elapsed / kPeriod);
    // Ticks that a pause has delayed are on their way.
    constexpr int64_t kPatience = 5'000'000'000;  // ns
    while (ticks_ < due && read_clock(CLOCK_MONOTONIC) - first_.monotonic < elapsed + kPatience) {
        sleep_until(read_clock(CLOCK_MONOTONIC) + kPeriod);
    }
    const uint64_t happened = ticks_;
    if (happened < due) {
        findings.text("reason", "ticks_lost").number("want", due).number("got", happened);
        return false;
    }
    return true;
}

void Clock::add_gaps(guest::Fields& fields) {
    fields.number("gap_us", microseconds(longest_.exchange(0)));
    fields.number("gap_total_max_us", microseconds(longest_ever_));
}

}  // namespace selfcheck
