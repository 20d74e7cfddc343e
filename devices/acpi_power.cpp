#include "devices/acpi_power.hpp"

#include <algorithm>

namespace devices {

namespace {

// SLEEP_CONTROL_REG.
constexpr unsigned kTypeShift = 2;
constexpr std::uint8_t kTypeMask = 0x7;
constexpr std::uint8_t kEnable = 1U << 5;

}  // namespace

void AcpiPower::read(std::uint64_t, std::span<std::byte> data) {
    std::fill(data.begin(), data.end(), std::byte{0});
}

void AcpiPower::write(std::uint64_t offset, std::span<const std::byte> data) {
    for (const std::byte written : data) {
        const auto value = std::to_integer<std::uint8_t>(written);
        if (offset == kSleepControl && (value & kEnable) != 0 &&
            (value >> kTypeShift & kTypeMask) == kSoftOff) {
            control_.power_off();
        } else if (offset == kReset && value == kResetValue) {
            control_.reset();
        }
        ++offset;
    }
}

vmm::Result<void> AcpiPower::restore(vmm::SnapshotReader& snapshot) {
    TRY(snapshot.take<AcpiPowerState>(0));
    return {};
}

}  // namespace devices
