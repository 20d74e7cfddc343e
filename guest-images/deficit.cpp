#include "deficit.hpp"

#include "runtime/arithmetic.hpp"
#include "runtime/clock.hpp"
#include "runtime/cpu.hpp"
#include "runtime/guest.hpp"

namespace workload {

void TimerDeficit::restart(uint64_t now, uint64_t rate_uhz) {
    expected_before_ = expected(now);
    counted_before_ = counted();
    start_ = now;
    rate_uhz_ = rate_uhz;
    first_ = *interrupts_;
    has_reference_ = false;
    lowest_ = INT64_MAX;
}

void TimerDeficit::sample() {
    const uint64_t counted = *interrupts_ - first_;
    // Read second: a pause between the two then raises the deficit, which the minimum forgets.
    const uint64_t elapsed = guest::rdtsc() - start_;
    const int64_t deficit = periods(elapsed) - kOne * static_cast<int64_t>(counted);
    lowest_ = deficit < lowest_ ? deficit : lowest_;
}

void TimerDeficit::close_window(const Events& events) {
    if (has_reference_) {
        judge(lowest_ - reference_, events);
    }
    reference_ = lowest_;
    has_reference_ = true;
    lowest_ = INT64_MAX;
}

uint64_t TimerDeficit::expected(uint64_t now) const {
    return expected_before_ + static_cast<uint64_t>(periods(now - start_) / kOne);
}

uint64_t TimerDeficit::allowance(const Events& events) const {
    return events.moves + static_cast<uint64_t>(periods(events.paused) / kOne);
}

int64_t TimerDeficit::periods(uint64_t ticks) const {
    return static_cast<int64_t>(guest::scale(ticks, rate_uhz_, guest::tsc_khz() * 1000000));
}

void TimerDeficit::judge(int64_t rise, const Events& events) {
    const int64_t extra_allowed = kOne * static_cast<int64_t>(events.moves);
    const int64_t lost_allowed = extra_allowed + periods(events.paused);
    const int64_t tolerance = kOne / 2 + slack_;
    if (rise > lost_allowed + tolerance || -rise > extra_allowed + tolerance) {
        guest::fail(guest::Fields()
                        .text("reason", rise > 0 ? "lost_ticks" : "extra_ticks")
                        .text("timer", name_)
                        .number("cpu", cpu_)
                        .signed_number("thousandths", rise > 0 ? rise : -rise)
                        .signed_number("allowed", rise > 0 ? lost_allowed : extra_allowed)
                        .number("moves", events.moves)
                        .number("paused_us", guest::us_from_tsc(events.paused)));
    }
    const auto rounded = static_cast<uint64_t>(((rise > 0 ? rise : -rise) + kOne / 2) / kOne);
    (rise > 0 ? lost_ : extra_) += rounded;
}

}  // namespace workload
