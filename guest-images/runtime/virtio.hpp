#pragma once

#include <stdint.h>

#include "runtime/text.hpp"

namespace guest::virtio {

// A virtio 1.2 device over MMIO (section 4.2), version 2 only. Section numbers here and in the other virtio
// files are those of the specification.
//
// Parameters of all guests with devices: `virtio=` address of the first window, `virtio_step=` from one to
// the next, `gsi=` interrupt of the first, one more for each; `irq=0` never to rely on interrupts;
// `event_idx=0` and `indirect=0` to do without these features; `qsize=` entries of a queue at most.

inline constexpr uint64_t kRingIndirect = uint64_t{1} << 28;
inline constexpr uint64_t kRingEventIndex = uint64_t{1} << 29;
inline constexpr uint64_t kVersion1 = uint64_t{1} << 32;

class Device {
  public:
    constexpr Device() = default;

    // Probes the windows for the first device of that kind (section 5) and resets it. None ends the guest
    // with FAIL.
    void find(const Parameters& parameters, uint32_t device_id);

    // Sections 3.1.1 steps 3 to 6: accepts of `wanted`, and of the transport's own features by parameter,
    // what the device offers. It must offer VERSION_1.
    void negotiate(uint64_t wanted);
    bool has(uint64_t features) const { return (features_ & features) == features; }
    uint64_t features() const { return features_; }

    // Driver_ok, once the queues are set up: the device is live.
    void start();

    // Interrupts that the device has raised; never changes with irq=0.
    const volatile uint64_t& interrupts() const;
    // Whether an interrupt told of a new configuration since the last call (section 2.3).
    bool take_config_change();
    bool uses_interrupts() const { return uses_interrupts_; }
    uint32_t queue_limit() const { return queue_limit_; }

    // Of the device configuration space, at any alignment the field has.
    uint8_t config8(uint32_t offset) const;
    uint16_t config16(uint32_t offset) const;
    uint32_t config32(uint32_t offset) const;
    uint64_t config64(uint32_t offset) const;

    // Ends the guest if the device has asked for a reset (section 2.1.2).
    void check_status() const;

    uint32_t read(uint32_t offset) const;
    void write(uint32_t offset, uint32_t value) const;
    void notify(uint32_t queue) const;

    void describe(Fields& fields) const;

  private:
    void add_status(uint32_t bits);

    uint64_t window_ = 0;
    uint32_t gsi_ = 0;
    uint32_t slot_ = 0;  // of the interrupt vectors and counters
    uint64_t features_ = 0;
    uint64_t allowed_ = 0;
    uint32_t queue_limit_ = 0;
    bool uses_interrupts_ = false;
};

}  // namespace guest::virtio
