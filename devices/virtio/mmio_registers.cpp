// The registers of virtio over MMIO, version 2 (virtio 1.2 section 4.2.2, table 4.1).
#include <algorithm>

#include "devices/virtio/mmio_transport.hpp"

namespace devices::virtio {

namespace {

constexpr std::uint64_t kMagicValue = 0x000;
constexpr std::uint64_t kVersion = 0x004;
constexpr std::uint64_t kDeviceId = 0x008;
constexpr std::uint64_t kVendorId = 0x00c;
constexpr std::uint64_t kDeviceFeatures = 0x010;
constexpr std::uint64_t kDeviceFeaturesSel = 0x014;
constexpr std::uint64_t kDriverFeatures = 0x020;
constexpr std::uint64_t kDriverFeaturesSel = 0x024;
constexpr std::uint64_t kQueueSel = 0x030;
constexpr std::uint64_t kQueueNumMax = 0x034;
constexpr std::uint64_t kQueueNum = 0x038;
constexpr std::uint64_t kQueueReady = 0x044;
constexpr std::uint64_t kInterruptStatus = 0x060;
constexpr std::uint64_t kInterruptAck = 0x064;
constexpr std::uint64_t kStatus = 0x070;
constexpr std::uint64_t kQueueDescLow = 0x080;
constexpr std::uint64_t kQueueDescHigh = 0x084;
constexpr std::uint64_t kQueueDriverLow = 0x090;
constexpr std::uint64_t kQueueDriverHigh = 0x094;
constexpr std::uint64_t kQueueDeviceLow = 0x0a0;
constexpr std::uint64_t kQueueDeviceHigh = 0x0a4;
constexpr std::uint64_t kConfigGeneration = 0x0fc;
constexpr std::uint64_t kConfig = 0x100;

constexpr std::uint32_t kMagic = 0x74726976;   // "virt"
constexpr std::uint32_t kVendor = 0x74775447;  // "GTwt": any value will do
constexpr std::uint32_t kNothing = 0xffff'ffff;

std::uint32_t half(std::uint64_t value, std::uint32_t select) {
    return select > 1 ? 0 : static_cast<std::uint32_t>(value >> (32 * select));
}

void set_half(std::uint64_t& value, std::uint32_t select, std::uint32_t bits) {
    if (select <= 1) {
        const unsigned shift = 32 * select;
        value = (value & ~(std::uint64_t{0xffff'ffff} << shift)) | std::uint64_t{bits} << shift;
    }
}

}  // namespace

MmioTransport::Queue* MmioTransport::selected() {
    return state_.queue_select < queues_.size() ? &queues_[state_.queue_select] : nullptr;
}

const MmioTransport::Queue* MmioTransport::selected() const {
    return state_.queue_select < queues_.size() ? &queues_[state_.queue_select] : nullptr;
}

// 4.2.2.2: registers are accessed as aligned 32-bit words, the configuration space with any width.
void MmioTransport::read(std::uint64_t offset, std::span<std::byte> data) {
    std::fill(data.begin(), data.end(), std::byte{0xff});
    const std::lock_guard lock{mutex_};
    if (offset >= kConfig) {
        const std::span<const std::byte> config = device_->config();
        const std::uint64_t at = offset - kConfig;
        if (at < config.size()) {
            std::copy_n(config.begin() + static_cast<std::ptrdiff_t>(at),
                        std::min<std::size_t>(data.size(), config.size() - at), data.begin());
        }
    } else if (data.size() == sizeof(std::uint32_t) && offset % sizeof(std::uint32_t) == 0) {
        vmm::store_le(data.data(), read_register(offset));
    }
}

void MmioTransport::write(std::uint64_t offset, std::span<const std::byte> data) {
    const std::lock_guard lock{mutex_};
    if (offset >= kConfig) {
        device_->write_config(offset - kConfig, data);
    } else if (data.size() == sizeof(std::uint32_t) && offset % sizeof(std::uint32_t) == 0) {
        write_register(offset, vmm::load_le<std::uint32_t>(data.data()));
    }
}

std::uint32_t MmioTransport::read_register(std::uint64_t offset) const {
    switch (offset) {
        case kMagicValue:
            return kMagic;
        case kVersion:
            return 2;
        case kDeviceId:
            return device_->type();
        case kVendorId:
            return kVendor;
        case kDeviceFeatures:
            return half(offered(), state_.device_features_select);
        case kQueueNumMax:
            return selected() == nullptr ? 0 : selected()->ring.max_size();
        case kQueueReady:
            return selected() != nullptr && selected()->ring.state().ready ? 1 : 0;
        case kInterruptStatus:
            return state_.interrupt_status;
        case kStatus:
            return state_.status;
        case kConfigGeneration:
            return state_.config_generation;
        default:
            return kNothing;  // write-only, reserved, and "no such region" for shared memory (4.2.2.1)
    }
}

void MmioTransport::write_register(std::uint64_t offset, std::uint32_t value) {
    switch (offset) {
        case kDeviceFeaturesSel:
            state_.device_features_select = value;
            break;
        case kDriverFeatures:
            if ((state_.status & kStatusFeaturesOk) == 0) {  // 3.1.1: not after negotiation
                set_half(state_.driver_features, state_.driver_features_select, value);
            }
            break;
        case kDriverFeaturesSel:
            state_.driver_features_select = value;
            break;
        case kQueueSel:
            state_.queue_select = value;
            break;
        case kQueueNotify:
            // With an ioeventfd on it KVM keeps this write to itself.
            if (value < queues_.size()) {
                queues_[value].notify.wake();
            }
            break;
        case kInterruptAck:
            state_.interrupt_status &= ~value;
            break;
        case kStatus:
            write_status(value);
            break;
        default:
            write_queue(offset, value);
            break;
    }
}

void MmioTransport::write_status(std::uint32_t value) {
    if (value == 0) {
        start_over();
        return;
    }
    // 2.1.1: bits are set one after another and never cleared but by a reset; NEEDS_RESET is ours.
    std::uint32_t set = value & 0xff & ~kStatusNeedsReset & ~state_.status;
    if ((set & kStatusFeaturesOk) != 0) {
        if (acceptable(state_.driver_features)) {
            accept_features();
        } else {
            set &= ~kStatusFeaturesOk;  // 2.2.1: the driver reads it back and knows
        }
    }
    state_.status |= set;
    if ((set & kStatusDriverOk) != 0) {
        for (const Queue& queue : queues_) {
            queue.notify.wake();  // some drivers fill a queue before
        }
    }
}

void MmioTransport::write_queue(std::uint64_t offset, std::uint32_t value) {
    Queue* queue = selected();
    if (queue == nullptr) {
        return;
    }
    QueueState& state = queue->ring.state();
    if (offset == kQueueReady) {
        if (value == 0) {
            queue->ring.set_state({});
            device_->queue_stopped(state_.queue_select);
        } else if (state.size == 0) {
            needs_reset({vmm::Code::invalid, "a queue was made ready without a size"});
        } else {
            state.ready = true;
        }
        return;
    }
    if (state.ready) {
        return;  // 4.2.2.2: not while it is in use
    }
    switch (offset) {
        case kQueueNum: {
            const bool fits = value <= queue->ring.max_size() && std::has_single_bit(value);
            state.size = fits ? static_cast<std::uint16_t>(value) : std::uint16_t{0};
            break;
        }
        case kQueueDescLow:
        case kQueueDescHigh:
            set_half(state.descriptors, offset == kQueueDescHigh ? 1 : 0, value);
            break;
        case kQueueDriverLow:
        case kQueueDriverHigh:
            set_half(state.available, offset == kQueueDriverHigh ? 1 : 0, value);
            break;
        case kQueueDeviceLow:
        case kQueueDeviceHigh:
            set_half(state.used, offset == kQueueDeviceHigh ? 1 : 0, value);
            break;
        default:
            break;
    }
}

}  // namespace devices::virtio
