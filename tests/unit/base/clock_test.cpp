#include "vmm/base/clock.hpp"

#include <catch2/catch.hpp>

TEST_CASE("the real clock does not go back, and durations convert to milliseconds", "[base]") {
    const vmm::Clock& clock = vmm::real_clock();
    const vmm::TimePoint first = clock.now();
    CHECK(clock.now() >= first);
    // 2020-01-01: the clock counts from 1970 in nanoseconds.
    CHECK(clock.realtime_ns() > 1'577'836'800'000'000'000);
    CHECK(vmm::to_ms(std::chrono::microseconds{1500}) == 1.5);
}
