// What devices talk to, recorded.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "devices/serial_backend.hpp"
#include "vmm/base/check.hpp"
#include "vmm/base/clock.hpp"
#include "vmm/guest/bus.hpp"
#include "vmm/guest/interrupt.hpp"
#include "vmm/guest/machine_control.hpp"

namespace tests {

// Of Device::pause(): only a failure reaches it.
inline constexpr vmm::Duration kPauseLimit = std::chrono::seconds{60};

class FakeLine final : public vmm::InterruptLine {
  public:
    void set(bool level) override {
        rises_ += level && !level_ ? 1 : 0;
        ++calls_;
        level_ = level;
    }
    bool level() const { return level_; }
    int rises() const { return rises_; }
    int calls() const { return calls_; }

  private:
    bool level_ = false;
    int rises_ = 0;
    int calls_ = 0;
};

class FakeControl final : public vmm::MachineControl {
  public:
    void exit(std::uint8_t value) override { exits.push_back(value); }
    void reset() override { ++resets; }
    void power_off() override { ++power_offs; }

    std::vector<std::uint8_t> exits;
    int resets = 0;
    int power_offs = 0;
};

class FakeClock final : public vmm::Clock {
  public:
    vmm::TimePoint now() const override { return {}; }
    std::int64_t realtime_ns() const override { return realtime; }

    std::int64_t realtime = 0;
};

// A back end without a host: the test moves the bytes. The device owns it, so what a test looks at is here.
struct FakeWire {
    devices::SerialWire* wire = nullptr;
    int wakes = 0;

    // The device must have been made: it sets `wire`.
    void listen() { set_listener(devices::SerialWire::Listener::present); }
    void leave() { set_listener(devices::SerialWire::Listener::absent); }
    void set_listener(devices::SerialWire::Listener listener) {
        VERIFY(wire != nullptr);
        wire->set_listener(listener);
    }
    // All output, or at most `limit` bytes of it.
    std::string take(std::size_t limit = SIZE_MAX) {
        VERIFY(wire != nullptr);  // a test makes the device first
        std::string all;
        while (all.size() < limit && wire->transmit([&](std::span<const std::byte> bytes) {
            const std::size_t count = std::min(bytes.size(), limit - all.size());
            all.append(reinterpret_cast<const char*>(bytes.data()), count);
            return count;
        })) {
        }
        return all;
    }
    // How much of `text` the guest takes now.
    std::size_t type(std::string_view text) {
        std::size_t done = 0;
        while (done < text.size() && wire->receive([&](std::span<std::byte> room) {
            const std::size_t count = std::min(room.size(), text.size() - done);
            std::copy_n(std::as_bytes(std::span{text}).begin() + static_cast<std::ptrdiff_t>(done), count,
                        room.begin());
            done += count;
            return count;
        })) {
        }
        return done;
    }
};

class FakeBackend final : public devices::SerialBackend {
  public:
    explicit FakeBackend(FakeWire& shared) : shared_(shared) {}
    void attach(devices::SerialWire& wire) override { shared_.wire = &wire; }
    void wake() override { ++shared_.wakes; }

  private:
    FakeWire& shared_;
};

inline std::uint8_t in(vmm::BusDevice& device, std::uint64_t offset) {
    std::array<std::byte, 1> value{};
    device.read(offset, value);
    return std::to_integer<std::uint8_t>(value[0]);
}

inline void out(vmm::BusDevice& device, std::uint64_t offset, unsigned value) {
    const std::array<std::byte, 1> bytes{static_cast<std::byte>(value)};
    device.write(offset, bytes);
}

inline void out(vmm::BusDevice& device, std::uint64_t offset, std::string_view text) {
    for (const char c : text) {
        out(device, offset, static_cast<unsigned char>(c));
    }
}

}  // namespace tests
