// The time registers of an MC146818, in binary or BCD and with 12 or 24 hours as register B says. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "devices/rtc_cmos_state.hpp"

namespace devices {

using CmosRam = std::array<std::uint8_t, rtc::kBytes>;

// Whether `reg` is one of the registers that count.
bool is_time_register(std::uint8_t reg);

// Makes the time registers of `ram` say `seconds` since 1970. Years beyond 0 to 9999 lose their upper digits.
void put_time(CmosRam& ram, std::int64_t seconds);

// What the time registers of `ram` say, in seconds since 1970; nothing when they say no time. The weekday is
// not looked at, and a day past the end of its month runs into the next.
std::optional<std::int64_t> take_time(const CmosRam& ram);

}  // namespace devices
