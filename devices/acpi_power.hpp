// The registers of a hardware-reduced ACPI machine by which its guest powers it off or resets it (ACPI 6.4,
// 4.8.3.6, 4.8.3.7 and 4.8.4.1).
#pragma once

#include "vmm/guest/bus.hpp"
#include "vmm/guest/device.hpp"
#include "vmm/guest/machine_control.hpp"

namespace devices {

// Without state of its own: soft off is the only sleep, and nothing wakes from it. The empty section says
// that the machine has one.
struct AcpiPowerState {
    static constexpr vmm::StateId id{"acpi-power", 1, 1};
    template <typename Self, typename V>
    static void visit(Self&, V&) {}
};

class AcpiPower final : public vmm::Device, public vmm::BusDevice {
  public:
    // Registers of one port each.
    static constexpr std::uint64_t kSleepControl = 0;
    static constexpr std::uint64_t kSleepStatus = 1;
    static constexpr std::uint64_t kReset = 2;
    static constexpr std::uint64_t kPorts = 3;
    // SLP_TYP of soft off (S5), and what resets when it is written to the reset register.
    static constexpr std::uint8_t kSoftOff = 5;
    static constexpr std::uint8_t kResetValue = 1;

    // The control must outlive the device.
    explicit AcpiPower(vmm::MachineControl& control) : control_(control) {}

    // All registers read as zero: SLP_EN is write-only, and WAK_STS never becomes set.
    void read(std::uint64_t offset, std::span<std::byte> data) override;
    // Sleep types other than soft off, and values that mean nothing, are ignored.
    void write(std::uint64_t offset, std::span<const std::byte> data) override;

    vmm::DeviceIdentity identity() const override { return {AcpiPowerState::id, 0}; }
    vmm::Result<std::uint64_t> pause(vmm::Duration) override { return {}; }
    void resume() override {}
    void reset() override {}
    void save(vmm::SnapshotWriter& snapshot) const override { snapshot.put(0, AcpiPowerState{}); }
    vmm::Result<void> restore(vmm::SnapshotReader& snapshot) override;

  private:
    vmm::MachineControl& control_;
};

}  // namespace devices
