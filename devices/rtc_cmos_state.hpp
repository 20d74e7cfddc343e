// Registers of the MC146818A real-time clock (Motorola data sheet, 1988) and its state.
#pragma once

#include <array>
#include <cstdint>

#include "vmm/state/field.hpp"

namespace devices {

namespace rtc {

enum Register : std::uint8_t {
    kSeconds = 0x00,
    kSecondsAlarm = 0x01,
    kMinutes = 0x02,
    kMinutesAlarm = 0x03,
    kHours = 0x04,
    kHoursAlarm = 0x05,
    kWeekday = 0x06,  // Sunday is 1
    kDay = 0x07,
    kMonth = 0x08,
    kYear = 0x09,
    kA = 0x0a,
    kB = 0x0b,
    kC = 0x0c,
    kD = 0x0d,
    kCentury = 0x32,  // where PCs and Linux expect it; the chip itself has none
    kBytes = 0x80,
};

inline constexpr std::uint8_t kAUpdating = 0x80;
inline constexpr std::uint8_t kADefault =
    0x26;  // 32768 Hz time base, 1024 Hz periodic rate, as PC firmware sets it
inline constexpr std::uint8_t kBSet = 0x80;
inline constexpr std::uint8_t kBInterrupts = 0x70;  // periodic, alarm, update-ended
inline constexpr std::uint8_t kBSquareWave = 0x08;
inline constexpr std::uint8_t kBBinary = 0x04;
inline constexpr std::uint8_t kB24Hours = 0x02;
inline constexpr std::uint8_t kCUpdateEnded = 0x10;
inline constexpr std::uint8_t kDValid = 0x80;
inline constexpr std::uint8_t kHoursPm = 0x80;

}  // namespace rtc

struct RtcCmosState {
    static constexpr vmm::StateId id{"rtc-cmos", 1, 1};
    // More than 9999 years either way: no sum with a host's clock overflows.
    static constexpr std::int64_t kOffsetLimit = 400'000'000'000;

    std::uint8_t index = 0;
    // The time registers count only while B.SET is on; registers C and D and bit 7 of A are computed.
    std::array<std::uint8_t, rtc::kBytes> ram{};
    // Guest time minus host time, in seconds, two's complement.
    std::uint64_t offset = 0;
    // Guest time, in seconds since 1970, two's complement, when register C was last read: its update-ended
    // flag.
    std::uint64_t flags_read = 0;

    std::int64_t offset_seconds() const { return static_cast<std::int64_t>(offset); }

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("index", self.index);
        v.check(self.index < rtc::kBytes, "index is inside the RAM");
        v.field("ram", self.ram);
        v.field("offset", self.offset);
        v.check(self.offset_seconds() >= -kOffsetLimit && self.offset_seconds() <= kOffsetLimit,
                "offset is a time that can be set");
        v.field("flags_read", self.flags_read);
    }
};

}  // namespace devices
