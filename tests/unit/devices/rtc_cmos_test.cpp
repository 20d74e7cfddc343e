#include "devices/rtc_cmos.hpp"

#include <catch2/catch.hpp>

#include "devices/rtc_calendar.hpp"
#include "tests/unit/devices/fakes.hpp"

using namespace devices::rtc;
using devices::CmosMemory;
using devices::CmosRam;
using devices::RtcCmos;
using tests::in;
using tests::out;

namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
// 2024-02-29 (a Thursday) 23:59:58 UTC
constexpr std::int64_t kLeapDay = 1'709'251'198;

struct Rtc {
    explicit Rtc(std::int64_t seconds = kLeapDay) { clock.realtime = seconds * kSecond; }

    std::uint8_t get(std::uint8_t reg) {
        out(device, 0, reg);
        return in(device, 1);
    }
    void set(std::uint8_t reg, unsigned value) {
        out(device, 0, reg);
        out(device, 1, value);
    }

    tests::FakeClock clock;
    RtcCmos device{clock, CmosMemory{}};
};

}  // namespace

TEST_CASE("the clock shows the host's time in BCD", "[devices]") {
    Rtc rtc;
    CHECK(rtc.get(kSeconds) == 0x58);
    CHECK(rtc.get(kMinutes) == 0x59);
    CHECK(rtc.get(kHours) == 0x23);
    CHECK(rtc.get(kWeekday) == 5);
    CHECK(rtc.get(kDay) == 0x29);
    CHECK(rtc.get(kMonth) == 0x02);
    CHECK(rtc.get(kYear) == 0x24);
    CHECK(rtc.get(kCentury) == 0x20);
    rtc.clock.realtime += 2 * kSecond;
    CHECK(rtc.get(kSeconds) == 0);
    CHECK(rtc.get(kDay) == 1);
    CHECK(rtc.get(kMonth) == 3);
}

TEST_CASE("binary and 12-hour formats", "[devices]") {
    Rtc rtc;
    rtc.set(kB, kBBinary);
    CHECK(rtc.get(kHours) == (11 | kHoursPm));
    CHECK(rtc.get(kMinutes) == 59);
    CHECK(rtc.get(kYear) == 24);
    rtc.set(kB, 0);
    CHECK(rtc.get(kHours) == (0x11 | kHoursPm));
    rtc.clock.realtime += 2 * kSecond;
    CHECK(rtc.get(kHours) == 0x12);  // midnight
    rtc.clock.realtime += 12 * 3600 * kSecond;
    CHECK(rtc.get(kHours) == (0x12 | kHoursPm));
}

TEST_CASE("every hour survives a round trip in every format", "[devices]") {
    const unsigned format = GENERATE(as<unsigned>{}, 0, kBBinary, kB24Hours, kBBinary | kB24Hours);
    CmosRam ram{};
    ram[kB] = static_cast<std::uint8_t>(format);
    for (std::int64_t seconds = -100'000; seconds < 200'000; seconds += 1237) {
        devices::put_time(ram, seconds);
        REQUIRE(devices::take_time(ram) == seconds);
    }
    for (std::int64_t day = 0; day < 146'097; day += 13) {  // 400 years: the calendar repeats
        devices::put_time(ram, day * 86'400 + 4711);
        REQUIRE(devices::take_time(ram) == day * 86'400 + 4711);
    }
    // The extremes that a state and a host's clock can add up to.
    for (const std::int64_t extreme : {std::int64_t{-500'000'000'000}, std::int64_t{500'000'000'000}}) {
        devices::put_time(ram, extreme);
        CHECK(devices::take_time(ram).has_value());
    }
}

TEST_CASE("a time that is none is not taken", "[devices]") {
    CmosRam good{};
    good[kB] = kB24Hours;
    devices::put_time(good, kLeapDay);
    const auto refused = [&](std::uint8_t reg, unsigned value) {
        CmosRam ram = good;
        ram[reg] = static_cast<std::uint8_t>(value);
        return !devices::take_time(ram).has_value();
    };
    CHECK(refused(kSeconds, 0x60));
    CHECK(refused(kSeconds, 0x5a));
    CHECK(refused(kMinutes, 0xff));
    CHECK(refused(kHours, 0x24));
    CHECK(refused(kDay, 0));
    CHECK(refused(kDay, 0x32));
    CHECK(refused(kMonth, 0));
    CHECK(refused(kMonth, 0x13));
    CHECK(refused(kYear, 0xa0));
    CHECK_FALSE(refused(kWeekday, 0xff));
    good[kB] = 0;
    CHECK(refused(kHours, 0));
    CHECK(refused(kHours, 0x13));
}

TEST_CASE("a guest sets the clock under SET, and it runs on from there", "[devices]") {
    Rtc rtc;
    rtc.set(kB, kB24Hours | kBSet);
    rtc.clock.realtime += 10 * kSecond;
    CHECK(rtc.get(kSeconds) == 0x58);
    rtc.set(kYear, 0x30);
    rtc.set(kMonth, 0x12);
    rtc.set(kDay, 0x31);
    rtc.set(kSeconds, 0x00);
    rtc.set(kB, kB24Hours);
    CHECK(rtc.get(kYear) == 0x30);
    CHECK(rtc.get(kDay) == 0x31);
    rtc.clock.realtime += 60 * kSecond;
    CHECK(rtc.get(kYear) == 0x31);
    CHECK(rtc.get(kMonth) == 0x01);
    CHECK(rtc.get(kHours) == 0x00);
}

TEST_CASE("a guest sets one register of the running clock", "[devices]") {
    Rtc rtc;
    rtc.set(kHours, 0x05);
    CHECK(rtc.get(kHours) == 0x05);
    CHECK(rtc.get(kMinutes) == 0x59);
    rtc.set(kHours, 0x77);
    CHECK(rtc.get(kHours) == 0x05);
}

TEST_CASE("control registers of the clock", "[devices]") {
    Rtc rtc;
    CHECK(rtc.get(kA) == kADefault);
    rtc.set(kA, 0xa9);
    CHECK(rtc.get(kA) == 0x29);
    rtc.clock.realtime += kSecond - 100'000;
    CHECK(rtc.get(kA) == 0xa9);
    rtc.set(kB, kB24Hours | kBSet);
    CHECK(rtc.get(kA) == 0x29);
    rtc.set(kB, kB24Hours | kBInterrupts);
    CHECK(rtc.get(kB) == (kB24Hours | kBInterrupts));
    rtc.set(kC, 0xff);
    rtc.set(kD, 0);
    CHECK(rtc.get(kD) == kDValid);
    rtc.clock.realtime += kSecond;
    CHECK(rtc.get(kC) == kCUpdateEnded);
    CHECK(rtc.get(kC) == 0);
    rtc.device.reset();
    CHECK(rtc.get(kB) == kB24Hours);
}

TEST_CASE("CMOS RAM keeps what is written, alarms too; the index drops the NMI bit", "[devices]") {
    Rtc rtc;
    rtc.set(kHoursAlarm, 0xc0);
    rtc.set(0x7f, 0x5a);
    rtc.set(0x80 | 0x40, 0xa5);
    CHECK(rtc.get(kHoursAlarm) == 0xc0);
    CHECK(rtc.get(0x7f) == 0x5a);
    CHECK(rtc.get(0x40) == 0xa5);
    CHECK(in(rtc.device, 0) == 0xff);
    rtc.device.reset();
    CHECK(rtc.get(0x40) == 0xa5);
    const std::array<std::byte, 2> both{std::byte{0x41}, std::byte{0x77}};
    rtc.device.write(0, both);
    CHECK(rtc.get(0x41) == 0x77);
}

TEST_CASE("CMOS RAM holds the memory sizes", "[devices]") {
    tests::FakeClock clock;
    RtcCmos device{clock, CmosMemory{std::uint64_t{512} << 20, std::uint64_t{3} << 30}};
    const auto get = [&](std::uint8_t reg) {
        out(device, 0, reg);
        return in(device, 1);
    };
    CHECK((get(0x15) | get(0x16) << 8) == 640);
    CHECK((get(0x17) | get(0x18) << 8) == 0xffff);
    CHECK((get(0x34) | get(0x35) << 8) == (512 - 16) * 16);
    CHECK((get(0x5b) | get(0x5c) << 8 | get(0x5d) << 16) == 3 * 1024 * 16);
}
