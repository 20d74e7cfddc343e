// The board: the only list of devices, with their addresses and interrupts.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "devices/serial_16550.hpp"
#include "devices/serial_backend.hpp"
#include "vmm/base/clock.hpp"
#include "vmm/base/event_loop.hpp"
#include "vmm/guest/bus.hpp"
#include "vmm/guest/device.hpp"
#include "vmm/guest/interrupt.hpp"
#include "vmm/guest/machine_control.hpp"
#include "vmm/guest/memory.hpp"

namespace devices {

inline constexpr std::uint64_t kResetPortBase = 0x60;
inline constexpr std::uint64_t kRtcBase = 0x70;
inline constexpr std::uint64_t kExitPortBase = 0xf4;
inline constexpr std::uint64_t kSerialBase = 0x3f8;
inline constexpr unsigned kSerialGsi = 4;

// What differs from machine to machine.
struct BoardConfig {
    SerialConfig serial;
    SerialEvents serial_events;
};

// What the machine offers to its devices. All of it must outlive them.
struct BoardPorts {
    vmm::Bus& pio;
    std::function<vmm::InterruptLine&(unsigned gsi)> line;
    std::function<void(std::unique_ptr<vmm::Device>)> add_device;
    vmm::MachineControl& control;
    std::span<const vmm::RegionConfig> memory;
    const vmm::Clock& clock;
    // Its thread serves the back ends; destroy the devices before it.
    vmm::EventLoop& io;
};

// Devices that their owner goes on talking to; the machine owns them.
struct Board {
    Serial16550* serial = nullptr;
};

// Creates every device and inserts it. After an error the machine is of no use.
vmm::Result<Board> build_board(BoardConfig config, const BoardPorts& ports);

}  // namespace devices
