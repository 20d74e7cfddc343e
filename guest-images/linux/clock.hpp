#pragma once

#include <atomic>
#include <cstdint>

#include "service.hpp"

namespace selfcheck {

// A tick every 10 ms by an absolute sleep on CLOCK_MONOTONIC. Each tick number happens once: after a pause
// the ticks that were missed follow at once. At each tick the clocks are compared: none goes back,
// CLOCK_MONOTONIC keeps to the TSC and CLOCK_REALTIME to CLOCK_MONOTONIC.
class Clock : public Service {
  public:
    void start(const guest::Parameters& parameters, guest::Fields& ready) override;
    void report(guest::Fields& counters) const override;
    bool verify(guest::Fields& findings) override;

    // gap_us, the longest time between two ticks since the last call, less the period; gap_total_max_us,
    // since the start.
    void add_gaps(guest::Fields& fields);

  private:
    // The clocks at one moment, as near as three readings in a row can tell.
    struct Sample {
        int64_t monotonic = 0;  // ns
        int64_t realtime = 0;   // ns
        uint64_t tsc = 0;
        int64_t width = 0;  // ns between the first reading and the last: how far apart the others may be
    };

    static Sample sample();
    int64_t tsc_ns(uint64_t ticks) const;
    void compare(const Sample& before, const Sample& now);
    void run();

    uint64_t tsc_khz_ = 0;  // 0: the kernel did not say, and the TSC is not judged
    uint64_t print_every_ = 0;
    Sample first_;
    std::atomic<uint64_t> ticks_ = 0;
    std::atomic<int64_t> longest_ = 0;  // ns, as all below
    std::atomic<int64_t> longest_ever_ = 0;
    std::atomic<int64_t> latest_wakeup_ = 0;
    std::atomic<int64_t> tsc_drift_ = 0;  // since the start, TSC minus CLOCK_MONOTONIC
};

}  // namespace selfcheck
