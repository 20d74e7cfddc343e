// Time as a port, so that decisions about it can be tested without waiting.
#pragma once

#include <chrono>
#include <cstdint>

namespace vmm {

using Duration = std::chrono::nanoseconds;
// CLOCK_MONOTONIC of this host.
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

class Clock {
  public:
    virtual ~Clock() = default;
    virtual TimePoint now() const = 0;
    // CLOCK_REALTIME, ns since 1970: only for comparing two hosts and for the guest's RTC.
    virtual std::int64_t realtime_ns() const = 0;
};

// The host's clocks; shared by everybody, without state.
const Clock& real_clock();

inline double to_ms(Duration duration) {
    return std::chrono::duration<double, std::milli>(duration).count();
}

}  // namespace vmm
