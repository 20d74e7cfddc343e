// A state with a field of every kind, in two versions: what the tests of the format and its fuzz target
// decode.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "vmm/base/bytes.hpp"
#include "vmm/state/field.hpp"

namespace tests {

enum class Mode : std::uint8_t { off, slow, fast };

// Stands for a struct of the KVM ABI.
struct Registers {
    std::uint64_t rax;
    std::uint64_t rip;
};

struct Timer {
    std::uint32_t deadline = 0;
    bool armed = false;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("deadline", self.deadline);
        v.field("armed", self.armed);
        v.check(self.armed || self.deadline == 0, "a timer that is not armed has no deadline");
    }
};

template <std::uint16_t Version>
struct SampleOf {
    static constexpr vmm::StateId id{"sample", Version, 1};
    static constexpr std::size_t kMaxTimers = 1000;

    std::uint8_t index = 0;
    std::array<std::uint16_t, 3> ports{};
    bool enabled = false;
    Mode mode = Mode::off;
    Registers registers{};
    vmm::Bytes blob;
    std::string label;
    std::vector<Timer> timers;
    std::vector<std::uint64_t> numbers;
    Timer watchdog;
    std::uint32_t speed = 100;  // since 2; a version 1 always had this speed

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("index", self.index);
        v.check(self.index < 128, "index < 128");
        v.field("ports", self.ports);
        v.field("enabled", self.enabled);
        v.enumeration("mode", self.mode, Mode::fast);
        v.raw("registers", self.registers);
        v.bytes("blob", self.blob, 0xffff'ffff);
        v.text("label", self.label, 16);
        v.list("timers", self.timers, kMaxTimers);
        v.list("numbers", self.numbers, 4);
        v.part("watchdog", self.watchdog);
        if constexpr (Version >= 2) {
            if (v.since(2)) {
                v.field("speed", self.speed);
            }
        }
    }
};

using SampleV1 = SampleOf<1>;
using Sample = SampleOf<2>;

template <typename T = Sample>
T sample() {
    T s;
    s.index = 7;
    s.ports = {0x3f8, 0x2f8, 0xffff};
    s.enabled = true;
    s.mode = Mode::slow;
    s.registers = {0x1122'3344'5566'7788, 0xfff0};
    s.blob = {std::byte{0xde}, std::byte{0xad}, std::byte{0xbe}};
    s.label = "godwit";
    s.timers = {{1000, true}, {0, false}};
    s.numbers = {1, 0xffff'ffff'ffff'ffff};
    s.watchdog = {5, true};
    if constexpr (T::id.current >= 2) {
        s.speed = 250;
    }
    return s;
}

}  // namespace tests
