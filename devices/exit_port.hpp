// The port by which a guest ends itself with a status, as QEMU's isa-debug-exit: the process ends with
// (value << 1) | 1.
#pragma once

#include "vmm/guest/bus.hpp"
#include "vmm/guest/device.hpp"
#include "vmm/guest/machine_control.hpp"

namespace devices {

// Without state of its own; its empty section says that the machine has one.
struct ExitPortState {
    static constexpr vmm::StateId id{"exit-port", 1, 1};
    template <typename Self, typename V>
    static void visit(Self&, V&) {}
};

class ExitPort final : public vmm::Device, public vmm::BusDevice {
  public:
    // A 32-bit write is legal too; its low byte is the value.
    static constexpr std::uint64_t kPorts = 4;

    // The control must outlive the device.
    explicit ExitPort(vmm::MachineControl& control) : control_(control) {}

    // Reads as zero.
    void read(std::uint64_t offset, std::span<std::byte> data) override;
    // Anything but the first port is ignored.
    void write(std::uint64_t offset, std::span<const std::byte> data) override;

    vmm::DeviceIdentity identity() const override { return {ExitPortState::id, 0}; }
    vmm::Result<std::uint64_t> pause(vmm::Duration) override { return {}; }
    void resume() override {}
    void reset() override {}
    void save(vmm::SnapshotWriter& snapshot) const override { snapshot.put(0, ExitPortState{}); }
    vmm::Result<void> restore(vmm::SnapshotReader& snapshot) override;

  private:
    vmm::MachineControl& control_;
};

}  // namespace devices
