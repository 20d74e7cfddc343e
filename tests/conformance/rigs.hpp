// What the conformance suite needs to know of a device: how to build it, and how a guest moves it away from
// power-on. A new device is one rig here and its name in the list at the end.
#pragma once

#include <memory>

#include "devices/acpi_power.hpp"
#include "devices/exit_port.hpp"
#include "devices/reset_port.hpp"
#include "devices/rtc_cmos.hpp"
#include "devices/serial_16550.hpp"
#include "tests/conformance/virtio_rigs.hpp"
#include "tests/unit/devices/fakes.hpp"

namespace tests {

// A rig has: State, kStateless, kRegisters (the size of its window), device(), bus(), populate(), kept() and
// changes(), which says of a field whether anything can change it. populate() makes every field of the state
// differ from power-on; called again it changes something. kept() takes what a reset leaves alone out of a
// state.

struct SerialRig {
    using State = devices::Serial16550State;
    static constexpr bool kStateless = false;
    static constexpr std::uint64_t kRegisters = 8;
    static bool changes(const std::string&) { return true; }

    vmm::Device& device() { return serial; }
    vmm::BusDevice& bus() { return serial; }
    void populate() {
        using namespace devices::uart;
        wire.listen();
        serial.resume();
        out(serial, kLcr, kLcrDivisor);
        out(serial, kData, 0x03);
        out(serial, kLcr, 0x03);
        out(serial, kIer, kIerReceive | kIerTransmit | kIerModem);
        out(serial, kIirFcr, 0x81);
        out(serial, kMcr, kMcrLoop);
        out(serial, kData, "0123456789abcdef!");  // one too many
        out(serial, kMcr, kMcrOut2);
        out(serial, kScr, 0x5a);
        out(serial, kData, "undelivered");
        (void)serial.pause(kPauseLimit);
    }
    static State kept(State state) {
        state.output.clear();
        return state;
    }

    FakeLine line;
    FakeWire wire;
    devices::Serial16550 serial{line, std::make_unique<FakeBackend>(wire)};
};

struct RtcRig {
    using State = devices::RtcCmosState;
    static constexpr bool kStateless = false;
    static constexpr std::uint64_t kRegisters = 2;
    static bool changes(const std::string&) { return true; }
    static constexpr std::int64_t kStart_ns = 1'700'000'000'123'456'789;

    RtcRig() { clock.realtime = kStart_ns; }
    vmm::Device& device() { return rtc; }
    vmm::BusDevice& bus() { return rtc; }
    void populate() {
        using namespace devices::rtc;
        set(kA, 0x2f);
        set(kB, kB24Hours | kBInterrupts | kBSquareWave);
        set(kYear, ++year);
        set(kHoursAlarm, 0x12);
        set(0x7f, 0x77);
        clock.realtime += 1'000'000'000;
        out(rtc, 0, kC);
        in(rtc, 1);
    }
    // Time and RAM have a battery.
    static State kept(State state) {
        state.offset = 0;
        state.flags_read = 0;
        const std::uint8_t b = state.ram[devices::rtc::kB];
        state.ram.fill(0);
        state.ram[devices::rtc::kB] = b;
        return state;
    }

    void set(std::uint8_t reg, unsigned value) {
        out(rtc, 0, reg);
        out(rtc, 1, value);
    }

    FakeClock clock;
    unsigned year = 0x40;
    devices::RtcCmos rtc{clock, devices::CmosMemory{std::uint64_t{1} << 30, 0}};
};

template <typename Port, typename PortState>
struct PortRig {
    using State = PortState;
    static constexpr bool kStateless = true;
    static constexpr std::uint64_t kRegisters = 8;
    static bool changes(const std::string&) { return true; }

    vmm::Device& device() { return port; }
    vmm::BusDevice& bus() { return port; }
    void populate() {
        for (unsigned value = 0; value < 256; ++value) {
            out(port, 0, value);
        }
    }
    static State kept(State state) { return state; }

    FakeControl control;
    Port port{control};
};

using ExitRig = PortRig<devices::ExitPort, devices::ExitPortState>;
using ResetRig = PortRig<devices::ResetPort, devices::ResetPortState>;
using AcpiPowerRig = PortRig<devices::AcpiPower, devices::AcpiPowerState>;

}  // namespace tests

#define ALL_RIGS                                                                                          \
    tests::SerialRig, tests::RtcRig, tests::ExitRig, tests::ResetRig, tests::AcpiPowerRig, tests::BlkRig, \
        tests::NetRig, tests::ConsoleRig, tests::RngRig
