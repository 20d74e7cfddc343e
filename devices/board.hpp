// The board: the only list of devices, with their addresses and interrupts.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "devices/serial_16550.hpp"
#include "devices/serial_backend.hpp"
#include "devices/virtio/factory.hpp"
#include "vmm/base/clock.hpp"
#include "vmm/base/event_loop.hpp"
#include "vmm/guest/bus.hpp"
#include "vmm/guest/device.hpp"
#include "vmm/guest/interrupt.hpp"
#include "vmm/guest/machine_control.hpp"
#include "vmm/guest/memory.hpp"
#include "vmm/guest/platform.hpp"

namespace devices {

inline constexpr std::uint64_t kResetPortBase = 0x60;
inline constexpr std::uint64_t kRtcBase = 0x70;
inline constexpr std::uint64_t kExitPortBase = 0xf4;
inline constexpr std::uint64_t kSerialBase = 0x3f8;
inline constexpr std::uint64_t kAcpiPowerBase = 0x600;
inline constexpr unsigned kSerialGsi = 4;
// Windows of virtio devices, one page and one line each. Their number is that of the lines that nothing else
// on a PC uses.
inline constexpr std::uint64_t kVirtioBase = 0xd000'0000;
inline constexpr unsigned kVirtioGsi = 16;
inline constexpr unsigned kVirtioWindows = 8;

// What differs from machine to machine.
struct BoardConfig {
    SerialConfig serial;
    SerialEvents serial_events;
    std::vector<virtio::Config> virtio;
    // The driver of a virtio device broke a rule, once for each device, or its host side failed; on the I/O
    // thread or a vCPU's.
    std::function<void(const std::string& what)> virtio_report = [](const std::string&) {};
};

// What the machine offers to its devices. All of it must outlive them.
struct BoardPorts {
    vmm::Bus& pio;
    vmm::Bus& mmio;
    std::function<vmm::InterruptLine&(unsigned gsi)> line;
    // Event descriptors: one that makes an edge on a line, and one that a guest's write to an address
    // signals.
    std::function<vmm::Result<void>(unsigned gsi, int event_fd)> attach_interrupt;
    std::function<vmm::Result<void>(vmm::Gpa gpa, std::uint32_t value, int event_fd)> attach_doorbell;
    std::function<void(std::unique_ptr<vmm::Device>)> add_device;
    std::function<void(vmm::Exclusive&)> add_exclusive;
    vmm::MachineControl& control;
    vmm::GuestMemory& memory;
    const vmm::Clock& clock;
    // Its thread serves the back ends; destroy the devices before it.
    vmm::EventLoop& io;
};

// Devices that their owner goes on talking to; the machine owns them.
struct Board {
    Serial16550* serial = nullptr;
    std::vector<virtio::Console*> consoles;
};

// What every board has: its devices but the virtio ones.
std::vector<vmm::DeviceIdentity> fixed_devices();
// What build_board() makes of `config`, as the guest is told.
vmm::Platform describe_platform(const BoardConfig& config, std::uint32_t vcpus);

// Creates every device and inserts it. After an error the machine is of no use.
vmm::Result<Board> build_board(BoardConfig config, const BoardPorts& ports);

}  // namespace devices
