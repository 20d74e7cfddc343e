#include "net_device.hpp"

#include "runtime/cpus.hpp"
#include "runtime/guest.hpp"
#include "runtime/memory.hpp"

namespace workload {
namespace {

using guest::Fields;
using guest::virtio::Buffer;

constexpr uint32_t kDeviceId = 1;

// Section 5.1.3.
constexpr uint64_t kChecksum = uint64_t{1} << 0;
constexpr uint64_t kGuestChecksum = uint64_t{1} << 1;
constexpr uint64_t kMac = uint64_t{1} << 5;
constexpr uint64_t kStatus = uint64_t{1} << 16;
constexpr uint64_t kControlQueue = uint64_t{1} << 17;
constexpr uint64_t kGuestAnnounce = uint64_t{1} << 21;

// Section 5.1.4.
constexpr uint32_t kConfigMac = 0;
constexpr uint32_t kConfigStatus = 6;
constexpr uint16_t kStatusAnnounce = 2;

constexpr uint8_t kNeedsChecksum = 1;

// Section 5.1.6.5.4.
constexpr uint8_t kClassAnnounce = 3;
constexpr uint8_t kCommandAcknowledge = 0;

constexpr uint64_t kLookEvery = 10;  // timer interrupts, where no interrupt tells of a new configuration

uint64_t address_of(const volatile void* pointer) {
    return reinterpret_cast<uint64_t>(pointer);
}

}  // namespace

void NetDevice::start(const guest::Parameters& parameters) {
    device_.find(parameters, kDeviceId);
    const uint64_t checksums = parameters.number("csum", 0) != 0 ? kChecksum | kGuestChecksum : 0;
    const uint64_t announce =
        parameters.number("announce", 1) != 0 ? kStatus | kControlQueue | kGuestAnnounce : 0;
    device_.negotiate(kMac | checksums | announce);
    if (!device_.has(kMac)) {
        guest::fail(Fields().text("reason", "no_mac"));
    }
    for (uint32_t i = 0; i < sizeof(Mac); ++i) {
        mac_.bytes[i] = device_.config8(kConfigMac + i);
    }
    receive_queue_.set_up(device_, 0);
    send_queue_.set_up(device_, 1);
    if (device_.has(kControlQueue)) {
        control_queue_.set_up(device_, 2);
    }
    slots_ = receive_queue_.size() < send_queue_.size() ? receive_queue_.size() : send_queue_.size();
    slots_ = slots_ < kMaxSlots ? slots_ : kMaxSlots;
    receive_slots_ = static_cast<Slot*>(guest::memory().take_contiguous(slots_ * sizeof(Slot)));
    send_slots_ = static_cast<Slot*>(guest::memory().take_contiguous(slots_ * sizeof(Slot)));
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        offer(slot);
    }
    device_.start();
    receive_queue_.notify();
}

// Section 5.1.6.3: without offloads a buffer must hold the header and 1514 bytes.
void NetDevice::offer(uint32_t slot) {
    const Buffer buffer{address_of(&receive_slots_[slot]), sizeof(Slot), true};
    receive_queue_.add(&buffer, 1, slot);
}

bool NetDevice::receive(Frame& frame) {
    guest::virtio::Queue::Used used;
    if (!receive_queue_.take(used)) {
        return false;
    }
    Slot& slot = receive_slots_[used.token];
    const bool unfinished = (slot.header.flags & kNeedsChecksum) != 0;
    const uint16_t buffers = slot.header.buffers;
    uncounted_ += buffers == 0 ? 1 : 0;
    if (used.bytes < sizeof(Header) || slot.header.gso_type != 0 || buffers > 1 ||
        (unfinished && !device_.has(kGuestChecksum))) {
        guest::fail(Fields()
                        .text("reason", "bad_frame_header")
                        .number("bytes", used.bytes)
                        .hex("flags", slot.header.flags)
                        .number("gso_type", slot.header.gso_type)
                        .number("buffers", buffers));
    }
    frame = {used.token, slot.frame, used.bytes - sizeof(Header), unfinished};
    return true;
}

void NetDevice::give_back(const Frame& frame) {
    offer(frame.slot);
}

void NetDevice::reclaim() {
    guest::virtio::Queue::Used used;
    while (send_queue_.take(used)) {
        sending_ &= ~(uint64_t{1} << used.token);
    }
}

uint8_t* NetDevice::sending() {
    reclaim();
    next_ = 0;
    while (next_ < slots_ && (sending_ >> next_ & 1) != 0) {
        ++next_;
    }
    return next_ == slots_ ? nullptr : send_slots_[next_].frame;
}

void NetDevice::send(size_t bytes, size_t sum_from, size_t checksum_at) {
    Slot& slot = send_slots_[next_];
    slot.header = {};
    if (checksum_at != 0) {
        slot.header.flags = kNeedsChecksum;
        slot.header.checksum_start = static_cast<uint16_t>(sum_from);
        slot.header.checksum_offset = static_cast<uint16_t>(checksum_at - sum_from);
    }
    const Buffer buffer{address_of(&slot), static_cast<uint32_t>(sizeof(Header) + bytes), false};
    if (!send_queue_.add(&buffer, 1, next_)) {
        guest::fail(Fields().text("reason", "queue_full"));
    }
    sending_ |= uint64_t{1} << next_;
}

void NetDevice::notify() {
    reclaim();
    receive_queue_.notify();
    send_queue_.notify();
}

bool NetDevice::finishes_checksums() const {
    return device_.has(kChecksum);
}

bool NetDevice::wants_announcement() {
    if (!device_.has(kGuestAnnounce)) {
        return false;
    }
    const uint64_t now = guest::boot_cpu.timer_ticks;
    if (!device_.take_config_change() &&
        (device_.uses_interrupts() || now - looked_at_config_ < kLookEvery)) {
        return false;
    }
    looked_at_config_ = now;
    return (device_.config16(kConfigStatus) & kStatusAnnounce) != 0;
}

void NetDevice::confirm_announcement() {
    constinit static uint8_t command[2] = {kClassAnnounce, kCommandAcknowledge};
    constinit static volatile uint8_t answer = 0;
    answer = 0xff;
    const Buffer buffers[] = {{address_of(command), sizeof(command), false}, {address_of(&answer), 1, true}};
    control_queue_.add(buffers, 2, 0);
    control_queue_.notify();
    guest::virtio::Queue::Used used;
    while (!control_queue_.take(used)) {
        check_patience(2000);
    }
    if (answer != 0) {
        guest::fail(Fields().text("reason", "announcement_refused").number("answer", answer));
    }
}

void NetDevice::check_patience(uint64_t patience) {
    receive_queue_.check_patience(patience, false);
    send_queue_.check_patience(patience, true);
    if (device_.has(kControlQueue)) {
        control_queue_.check_patience(patience, true);
    }
}

}  // namespace workload
