// What software expects of the 8042 keyboard controller of a PC that has no keyboard: the reset pulse.
#pragma once

#include "vmm/guest/bus.hpp"
#include "vmm/guest/device.hpp"
#include "vmm/guest/machine_control.hpp"

namespace devices {

// Without state of its own; its empty section says that the machine has one.
struct ResetPortState {
    static constexpr vmm::StateId id{"reset-port", 1, 1};
    template <typename Self, typename V>
    static void visit(Self&, V&) {}
};

// Data port 0x60 and command port 0x64. Status and data read as zero: no output waits, the controller takes
// commands. Command 0xfe pulses the reset line; every other command and all data are ignored. Ports 0x61 to
// 0x63 are not ours and read as ones.
class ResetPort final : public vmm::Device, public vmm::BusDevice {
  public:
    static constexpr std::uint64_t kPorts = 5;

    // The control must outlive the device.
    explicit ResetPort(vmm::MachineControl& control) : control_(control) {}

    void read(std::uint64_t offset, std::span<std::byte> data) override;
    void write(std::uint64_t offset, std::span<const std::byte> data) override;

    vmm::DeviceIdentity identity() const override { return {ResetPortState::id, 0}; }
    vmm::Result<std::uint64_t> pause(vmm::Duration) override { return {}; }
    void resume() override {}
    void reset() override {}
    void save(vmm::SnapshotWriter& snapshot) const override { snapshot.put(0, ResetPortState{}); }
    vmm::Result<void> restore(vmm::SnapshotReader& snapshot) override;

  private:
    vmm::MachineControl& control_;
};

}  // namespace devices
