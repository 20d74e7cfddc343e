#include "runtime/virtio.hpp"

#include "runtime/abi.h"
#include "runtime/cpu.hpp"
#include "runtime/guest.hpp"
#include "runtime/interrupts.hpp"
#include "runtime/memory.hpp"

extern "C" {
extern volatile uint64_t virtio_windows[VIRTIO_DEVICES];
extern const volatile uint64_t virtio_interrupts[VIRTIO_DEVICES];
extern uint32_t virtio_causes[VIRTIO_DEVICES];
}

namespace guest::virtio {
namespace {

constexpr uint32_t kMaxWindows = 32;

// Section 4.2.2.
constexpr uint32_t kMagic = 0x74726976;
constexpr uint32_t kModern = 2;
constexpr uint32_t kRegisterMagic = 0x000;
constexpr uint32_t kRegisterVersion = 0x004;
constexpr uint32_t kRegisterDeviceId = 0x008;
constexpr uint32_t kRegisterDeviceFeatures = 0x010;
constexpr uint32_t kRegisterDeviceFeaturesSelect = 0x014;
constexpr uint32_t kRegisterDriverFeatures = 0x020;
constexpr uint32_t kRegisterDriverFeaturesSelect = 0x024;
constexpr uint32_t kRegisterNotify = 0x050;
constexpr uint32_t kRegisterStatus = 0x070;
constexpr uint32_t kRegisterGeneration = 0x0fc;
constexpr uint32_t kConfig = 0x100;

// Section 2.1.
constexpr uint32_t kAcknowledge = 1;
constexpr uint32_t kDriver = 2;
constexpr uint32_t kDriverOk = 4;
constexpr uint32_t kFeaturesOk = 8;
constexpr uint32_t kNeedsReset = 64;

constexpr uint32_t kCauseConfig = 2;  // in the interrupt status

constinit uint32_t devices = 0;

}  // namespace

void Device::find(const Parameters& parameters, uint32_t device_id) {
    const uint64_t first = parameters.number("virtio", 0xd0000000);
    const uint64_t step = parameters.number("virtio_step", 0x1000);
    const auto first_gsi = static_cast<uint32_t>(parameters.number("gsi", 16));
    uses_interrupts_ = parameters.number("irq", 1) != 0;
    queue_limit_ = static_cast<uint32_t>(parameters.number("qsize", 128));
    allowed_ = kVersion1 | (parameters.number("event_idx", 1) != 0 ? kRingEventIndex : 0) |
               (parameters.number("indirect", 1) != 0 ? kRingIndirect : 0);
    for (uint32_t i = 0; i < kMaxWindows; ++i) {
        window_ = first + i * step;
        memory().map_device(window_);
        if (read(kRegisterMagic) != kMagic || read(kRegisterDeviceId) != device_id) {
            continue;
        }
        if (read(kRegisterVersion) != kModern) {
            fail(Fields().text("reason", "legacy_virtio").hex("window", window_));
        }
        if (devices == VIRTIO_DEVICES) {
            fail(Fields().text("reason", "too_many_devices"));
        }
        gsi_ = first_gsi + i;
        slot_ = devices++;
        virtio_windows[slot_] = window_;
        write(kRegisterStatus, 0);
        while (read(kRegisterStatus) != 0) {
        }
        return;
    }
    fail(Fields().text("reason", "no_virtio_device").number("id", device_id).hex("first_window", first));
}

void Device::negotiate(uint64_t wanted) {
    add_status(kAcknowledge);
    add_status(kDriver);
    uint64_t offered = 0;
    for (uint32_t half = 0; half < 2; ++half) {
        write(kRegisterDeviceFeaturesSelect, half);
        offered |= uint64_t{read(kRegisterDeviceFeatures)} << (32 * half);
    }
    features_ = offered & (wanted | allowed_);
    for (uint32_t half = 0; half < 2; ++half) {
        write(kRegisterDriverFeaturesSelect, half);
        write(kRegisterDriverFeatures, static_cast<uint32_t>(features_ >> (32 * half)));
    }
    add_status(kFeaturesOk);
    if (!has(kVersion1) || (read(kRegisterStatus) & kFeaturesOk) == 0) {
        fail(Fields().text("reason", "features_refused").hex("offered", offered).hex("accepted", features_));
    }
}

void Device::start() {
    if (uses_interrupts_) {
        route_edge(gsi_, VECTOR_VIRTIO + slot_);
    }
    add_status(kDriverOk);
}

void Device::add_status(uint32_t bits) {
    write(kRegisterStatus, read(kRegisterStatus) | bits);
}

const volatile uint64_t& Device::interrupts() const {
    return virtio_interrupts[slot_];
}

bool Device::take_config_change() {
    return (__atomic_exchange_n(&virtio_causes[slot_], 0, __ATOMIC_RELAXED) & kCauseConfig) != 0;
}

uint8_t Device::config8(uint32_t offset) const {
    uint8_t value;
    asm volatile("movb (%1), %0" : "=q"(value) : "r"(window_ + kConfig + offset) : "memory");
    return value;
}

uint16_t Device::config16(uint32_t offset) const {
    uint16_t value;
    asm volatile("movw (%1), %0" : "=r"(value) : "r"(window_ + kConfig + offset) : "memory");
    return value;
}

uint32_t Device::config32(uint32_t offset) const {
    return read(kConfig + offset);
}

// Section 4.2.2.2: in two halves, which belong together if the generation did not change.
uint64_t Device::config64(uint32_t offset) const {
    for (;;) {
        const uint32_t generation = read(kRegisterGeneration);
        const uint64_t value = config32(offset) | uint64_t{config32(offset + 4)} << 32;
        if (read(kRegisterGeneration) == generation) {
            return value;
        }
    }
}

void Device::check_status() const {
    const uint32_t status = read(kRegisterStatus);
    if ((status & kNeedsReset) != 0 || (status & kDriverOk) == 0) {
        fail(Fields().text("reason", "device_needs_reset").hex("window", window_).hex("status", status));
    }
}

uint32_t Device::read(uint32_t offset) const {
    return mmio_read(window_ + offset);
}

void Device::write(uint32_t offset, uint32_t value) const {
    mmio_write(window_ + offset, value);
}

void Device::notify(uint32_t queue) const {
    write(kRegisterNotify, queue);
}

void Device::describe(Fields& fields) const {
    fields.hex("window", window_).number("gsi", gsi_).hex("features", features_);
    fields.number("irq", uses_interrupts_ ? 1 : 0);
}

}  // namespace guest::virtio
