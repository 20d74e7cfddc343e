#include "devices/rtc_calendar.hpp"

#include <chrono>

namespace devices {

using namespace rtc;

namespace {

constexpr std::int64_t kDay_s = 86400;
constexpr unsigned kNoon = 12;

bool is_binary(const CmosRam& ram) {
    return (ram[kB] & kBBinary) != 0;
}

std::uint8_t encoded(const CmosRam& ram, unsigned value) {
    return static_cast<std::uint8_t>(is_binary(ram) ? value : value / 10 * 16 + value % 10);
}

// 0xff, which every range check refuses, for what is not BCD.
unsigned decoded(const CmosRam& ram, unsigned value) {
    if (is_binary(ram)) {
        return value;
    }
    return value % 16 > 9 || value / 16 > 9 ? 0xff : value / 16 * 10 + value % 16;
}

std::uint8_t encoded_hours(const CmosRam& ram, unsigned hours) {
    if ((ram[kB] & kB24Hours) != 0) {
        return encoded(ram, hours);
    }
    const std::uint8_t twelve = encoded(ram, hours % kNoon == 0 ? kNoon : hours % kNoon);
    return hours >= kNoon ? twelve | kHoursPm : twelve;
}

// 0xff for what is no hour.
unsigned decoded_hours(const CmosRam& ram) {
    if ((ram[kB] & kB24Hours) != 0) {
        return decoded(ram, ram[kHours]);
    }
    const unsigned twelve = decoded(ram, ram[kHours] & ~unsigned{kHoursPm});
    if (twelve < 1 || twelve > kNoon) {
        return 0xff;
    }
    return twelve % kNoon + ((ram[kHours] & kHoursPm) != 0 ? kNoon : 0);
}

}  // namespace

bool is_time_register(std::uint8_t reg) {
    switch (reg) {
        case kSeconds:
        case kMinutes:
        case kHours:
        case kWeekday:
        case kDay:
        case kMonth:
        case kYear:
        case kCentury:
            return true;
        default:
            return false;
    }
}

void put_time(CmosRam& ram, std::int64_t seconds) {
    using std::chrono::floor;
    const std::chrono::sys_seconds time{std::chrono::seconds{seconds}};
    const auto days = floor<std::chrono::days>(time);
    const std::chrono::year_month_day date{days};
    const auto of_day = static_cast<unsigned>((time - days).count());
    const int year = ((static_cast<int>(date.year()) % 10000) + 10000) % 10000;

    ram[kSeconds] = encoded(ram, of_day % 60);
    ram[kMinutes] = encoded(ram, of_day / 60 % 60);
    ram[kHours] = encoded_hours(ram, of_day / 3600);
    ram[kWeekday] = encoded(ram, std::chrono::weekday{days}.c_encoding() + 1);
    ram[kDay] = encoded(ram, static_cast<unsigned>(date.day()));
    ram[kMonth] = encoded(ram, static_cast<unsigned>(date.month()));
    ram[kYear] = encoded(ram, static_cast<unsigned>(year % 100));
    ram[kCentury] = encoded(ram, static_cast<unsigned>(year / 100));
}

std::optional<std::int64_t> take_time(const CmosRam& ram) {
    const unsigned second = decoded(ram, ram[kSeconds]);
    const unsigned minute = decoded(ram, ram[kMinutes]);
    const unsigned hour = decoded_hours(ram);
    const unsigned day = decoded(ram, ram[kDay]);
    const unsigned month = decoded(ram, ram[kMonth]);
    const unsigned year = decoded(ram, ram[kYear]);
    const unsigned century = decoded(ram, ram[kCentury]);
    if (second > 59 || minute > 59 || hour > 23 || day < 1 || day > 31 || month < 1 || month > 12 ||
        year > 99 || century > 99) {
        return std::nullopt;
    }
    const std::chrono::year_month_day first{std::chrono::year{static_cast<int>(century * 100 + year)},
                                            std::chrono::month{month}, std::chrono::day{1}};
    const std::int64_t days = std::chrono::sys_days{first}.time_since_epoch().count() + day - 1;
    return days * kDay_s + hour * 3600 + minute * 60 + second;
}

}  // namespace devices
