// MC146818 real-time clock and CMOS RAM at ports 0x70 (index) and 0x71 (data).
//
// The clock is the host's plus an offset that the guest changes by setting it. Without timers of its own the
// device raises no interrupt: alarm, periodic and square-wave settings are stored and read back, and a guest
// polls. The divider always runs.
#pragma once

#include <mutex>

#include "devices/rtc_calendar.hpp"
#include "vmm/base/clock.hpp"
#include "vmm/guest/bus.hpp"
#include "vmm/guest/device.hpp"

namespace devices {

// RAM sizes that PC firmware leaves in the CMOS, in bytes.
struct CmosMemory {
    std::uint64_t below_4g = 0;
    std::uint64_t above_4g = 0;
};

class RtcCmos final : public vmm::Device, public vmm::BusDevice {
  public:
    static constexpr std::uint64_t kPorts = 2;

    // The clock must outlive the device.
    RtcCmos(const vmm::Clock& clock, const CmosMemory& memory);

    void read(std::uint64_t offset, std::span<std::byte> data) override;
    void write(std::uint64_t offset, std::span<const std::byte> data) override;

    vmm::DeviceIdentity identity() const override { return {RtcCmosState::id, 0}; }
    vmm::Result<std::uint64_t> pause(vmm::Duration) override { return {}; }
    void resume() override {}
    // What the RESET pin does (data sheet, "RESET"): interrupt and square-wave enables go off and the flags
    // are cleared. Time and RAM have a battery and stay.
    void reset() override;
    void save(vmm::SnapshotWriter& snapshot) const override;
    vmm::Result<void> restore(vmm::SnapshotReader& snapshot) override;

  private:
    // All below with mutex_ held. Guest time in seconds since 1970.
    std::int64_t now() const;
    std::uint8_t read_register(std::uint8_t reg);
    void write_register(std::uint8_t reg, std::uint8_t value);
    void write_b(std::uint8_t value);
    void write_time(std::uint8_t reg, std::uint8_t value);
    bool frozen() const;
    // Makes what the time registers of `ram` say the guest's time.
    void set_time(const CmosRam& ram);

    const vmm::Clock& clock_;
    mutable std::mutex mutex_;
    RtcCmosState state_;
};

}  // namespace devices
