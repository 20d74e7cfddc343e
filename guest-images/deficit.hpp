#pragma once

#include <stdint.h>

#include "runtime/text.hpp"

namespace workload {

// What excuses lost and extra interrupts.
struct Events {
    uint64_t moves = 0;
    uint64_t paused = 0;  // TSC ticks
};

// Judges the interrupts of one timer by its deficit, elapsed / period - interrupts.
//
// While nothing happens the minimum of the deficit over half a second stays the same: a late interrupt
// raises the deficit only until it arrives, a lost one raises it for good, an extra one lowers it for
// good. So windows of half a second are compared by their minimum, which between two of them may
//   rise by pause / period for each TSC gap longer than gap_us, whatever its cause: interrupts of a
//     vCPU that does not run merge in one pending bit, and a moved timer stood still,
//   rise by 1 for each move: a PIT restored from its registers begins a whole new period,
//   fall by 1 for each move: an interrupt may have been delivered and restored as pending too,
//   and move by half an interrupt: the kernel slews the clock its timers run on by up to 500 ppm,
//     which at 1000 Hz is 0.25 interrupts in a window; the rest is for lateness.
class TimerDeficit {
  public:
    // `interrupts` counts those taken so far; `cpu` only tells timers of one name apart.
    constexpr TimerDeficit(const char* name, const volatile uint64_t& interrupts, uint32_t cpu = 0)
        : name_(name), interrupts_(&interrupts), cpu_(cpu) {}

    // Interrupts tolerated beyond the rule, for hosts whose timers are late for whole windows.
    void set_slack(uint64_t interrupts) { slack_ = kOne * static_cast<int64_t>(interrupts); }

    // The timer begins a new period now, at a rate in millionths of a hertz.
    void restart(uint64_t now, uint64_t rate_uhz);

    void sample();

    // Compares the window with the one before. `events` are those of both: the minimum of a window may
    // date from before them. A violation ends the guest.
    void close_window(const Events& events);

    uint64_t counted() const { return counted_before_ + *interrupts_ - first_; }
    uint64_t expected(uint64_t now) const;
    uint64_t lost() const { return lost_; }
    uint64_t extra() const { return extra_; }
    // How many interrupts the events may cost.
    uint64_t allowance(const Events& events) const;

  private:
    static constexpr int64_t kOne = 1000;  // deficits are in thousandths of an interrupt

    int64_t periods(uint64_t ticks) const;
    void judge(int64_t rise, const Events& events);

    const char* name_;
    const volatile uint64_t* interrupts_;
    uint32_t cpu_;
    int64_t slack_ = 0;
    uint64_t start_ = 0;
    uint64_t rate_uhz_ = 0;
    uint64_t first_ = 0;
    uint64_t counted_before_ = 0;
    uint64_t expected_before_ = 0;
    int64_t lowest_ = INT64_MAX;
    int64_t reference_ = 0;
    bool has_reference_ = false;
    uint64_t lost_ = 0;
    uint64_t extra_ = 0;
};

}  // namespace workload
