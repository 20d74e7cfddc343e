#include "smp_timer.hpp"

#include "runtime/arithmetic.hpp"
#include "runtime/cpu.hpp"
#include "runtime/guest.hpp"
#include "runtime/lapic.hpp"

namespace workload {
namespace {

constexpr uint64_t kWindowUs = 500000;
constexpr uint64_t kSlewShare = 2000;

}  // namespace

void CpuTimer::start(guest::Cpu& cpu, uint64_t lapic_hz, uint64_t hz, uint64_t slack) {
    cpu_ = cpu.index;
    slack_ = slack;
    deficit_ = TimerDeficit("lapic", cpu.timer_ticks, cpu.index);
    deficit_.set_slack(slack);
    if (guest::has_kvmclock()) {
        guest::enable_kvmclock(kvmclock_);
        seen_version_ = kvmclock_.version;
    }
    watch_.set_pause_threshold(guest::tsc_khz() * 1000 / hz);
    watch_.start();
    window_start_ = watch_.now();
    const auto count = static_cast<uint32_t>(lapic_hz / hz);
    guest::set_lapic_timer_mode(guest::TimerMode::periodic);
    guest::arm_lapic_timer(count);
    deficit_.restart(guest::rdtsc(), guest::scale(lapic_hz, 1000000, count));
}

void CpuTimer::note_events() {
    const uint64_t pauses = watch_.pauses() - seen_pauses_;
    this_window_.paused += watch_.paused() - seen_paused_;
    seen_pauses_ = watch_.pauses();
    seen_paused_ = watch_.paused();
    uint64_t moves = pauses;
    if (guest::has_kvmclock()) {
        moves = kvmclock_.version != seen_version_ ? 1 : 0;
        seen_version_ = kvmclock_.version;
    }
    this_window_.moves += moves;
    moves_ += moves;
}

void CpuTimer::step() {
    watch_.beat();
    if (watch_.back_steps() != 0) {
        guest::fail(guest::Fields().text("reason", "tsc_went_back").number("cpu", cpu_));
    }
    note_events();
    deficit_.sample();
    const uint64_t now = watch_.now();
    if (now - window_start_ < guest::tsc_from_us(kWindowUs)) {
        return;
    }
    deficit_.close_window(
        {this_window_.moves + last_window_.moves, this_window_.paused + last_window_.paused});
    judge_total();
    last_window_ = this_window_;
    this_window_ = {};
    window_start_ = now;
}

void CpuTimer::judge_total() const {
    const uint64_t expected = deficit_.expected(watch_.now());
    const uint64_t counted = deficit_.counted();
    const uint64_t tolerance = 1 + slack_ + expected / kSlewShare;
    const uint64_t allowance = deficit_.allowance({moves_, watch_.paused()});
    if (counted + allowance + tolerance < expected || counted > expected + moves_ + tolerance) {
        guest::fail(guest::Fields()
                        .text("reason", "timer_total")
                        .number("cpu", cpu_)
                        .number("want", expected)
                        .number("got", counted)
                        .number("allowance", allowance)
                        .number("moves", moves_));
    }
}

}  // namespace workload
