#include "runtime/virtqueue.hpp"

#include "runtime/abi.h"
#include "runtime/cpus.hpp"
#include "runtime/guest.hpp"
#include "runtime/memory.hpp"

namespace guest::virtio {
namespace {

// Section 4.2.2.
constexpr uint32_t kRegisterQueueSelect = 0x030;
constexpr uint32_t kRegisterQueueSizeMax = 0x034;
constexpr uint32_t kRegisterQueueSize = 0x038;
constexpr uint32_t kRegisterQueueReady = 0x044;
constexpr uint32_t kRegisterQueueDescriptors = 0x080;
constexpr uint32_t kRegisterQueueDriver = 0x090;
constexpr uint32_t kRegisterQueueDevice = 0x0a0;

// Section 2.7.5.
constexpr uint16_t kNext = 1;
constexpr uint16_t kWrite = 2;
constexpr uint16_t kIndirect = 4;

// Sections 2.7.6 and 2.7.8: both rings begin with flags and index; these are offsets in 16-bit words.
constexpr uint32_t kFlags = 0;
constexpr uint32_t kIndex = 1;
constexpr uint32_t kRing = 2;
constexpr uint16_t kNoNotification = 1;  // either side's wish
constexpr uint32_t kUsedWords = 4;       // a used element: id and length, 32 bits each

void write_address(const Device& device, uint32_t offset, const volatile void* pointer) {
    const auto address = reinterpret_cast<uint64_t>(pointer);
    device.write(offset, static_cast<uint32_t>(address));
    device.write(offset + 4, static_cast<uint32_t>(address >> 32));
}

uint32_t power_of_two_below(uint32_t limit) {
    uint32_t size = 1;
    while (size * 2 <= limit) {
        size *= 2;
    }
    return size;
}

// A store must not pass a later load (sections 2.7.7.1, 2.7.13.4.1); other orders x86 keeps by itself.
void full_fence() {
    asm volatile("mfence" : : : "memory");
}

}  // namespace

void Queue::set_up(Device& device, uint32_t index) {
    device_ = &device;
    index_ = index;
    device.write(kRegisterQueueSelect, index);
    uint32_t limit = device.read(kRegisterQueueSizeMax);
    if (limit == 0 || device.read(kRegisterQueueReady) != 0) {
        fail(Fields().text("reason", "no_queue").number("queue", index));
    }
    limit = limit < kMaxSize ? limit : kMaxSize;
    limit = device.queue_limit() != 0 && device.queue_limit() < limit ? device.queue_limit() : limit;
    size_ = power_of_two_below(limit);

    auto take = [](uint64_t bytes) { return memory().take_contiguous(bytes); };
    descriptors_ = static_cast<Descriptor*>(take(size_ * sizeof(Descriptor)));
    available_ = static_cast<volatile uint16_t*>(take(6 + 2 * size_));
    used_ = static_cast<volatile uint16_t*>(take(6 + 8 * size_));
    if (device.has(kRingIndirect)) {
        indirect_ = static_cast<Descriptor*>(take(size_ * kMaxBuffers * sizeof(Descriptor)));
    }
    for (uint32_t i = 0; i < size_; ++i) {
        descriptors_[i].next = static_cast<uint16_t>(i + 1);
    }
    free_ = size_;
    if (!device.uses_interrupts()) {
        available_[kFlags] = kNoNotification;
    }

    device.write(kRegisterQueueSize, size_);
    write_address(device, kRegisterQueueDescriptors, descriptors_);
    write_address(device, kRegisterQueueDriver, available_);
    write_address(device, kRegisterQueueDevice, used_);
    device.write(kRegisterQueueReady, 1);
}

void Queue::fill(Descriptor* table, uint32_t at, const Buffer* buffers, uint32_t count, bool by_free_list) {
    for (uint32_t i = 0; i < count; ++i) {
        Descriptor& descriptor = table[at];
        const uint32_t next = by_free_list ? descriptor.next : at + 1;
        const bool last = i + 1 == count;
        descriptor.address = buffers[i].address;
        descriptor.bytes = buffers[i].bytes;
        descriptor.flags =
            static_cast<uint16_t>((last ? 0 : kNext) | (buffers[i].written_by_device ? kWrite : 0));
        // The last one's is kept: it leads on to the rest of the free list.
        descriptor.next = static_cast<uint16_t>(next);
        at = next;
    }
}

// Section 2.7.13.
bool Queue::add(const Buffer* buffers, uint32_t count, uint32_t token) {
    const uint32_t entries = indirect_ != nullptr ? 1 : count;
    if (entries > free_ || count > kMaxBuffers) {
        return false;
    }
    const uint32_t head = first_free_;
    if (indirect_ != nullptr) {
        Descriptor* table = &indirect_[head * kMaxBuffers];
        fill(table, 0, buffers, count, false);
        const Buffer whole{reinterpret_cast<uint64_t>(table),
                           static_cast<uint32_t>(count * sizeof(Descriptor)), false};
        fill(descriptors_, head, &whole, 1, true);
        descriptors_[head].flags = kIndirect;
    } else {
        fill(descriptors_, head, buffers, count, true);
    }
    uint32_t last = head;
    for (uint32_t i = 1; i < entries; ++i) {
        last = descriptors_[last].next;
    }
    first_free_ = descriptors_[last].next;
    free_ -= entries;
    uint64_t room = 0;
    for (uint32_t i = 0; i < count; ++i) {
        room += buffers[i].written_by_device ? buffers[i].bytes : 0;
    }
    requests_[head] = {token, entries, room};
    ++in_flight_;

    available_[kRing + added_ % size_] = static_cast<uint16_t>(head);
    asm volatile("" : : : "memory");
    available_[kIndex] = ++added_;
    return true;
}

// Section 2.7.10: with event indices, only when the one the device waits for was passed.
bool Queue::wants_notification(uint16_t from, uint16_t to) const {
    if (!device_->has(kRingEventIndex)) {
        return (used_[kFlags] & kNoNotification) == 0;
    }
    const uint16_t event = used_[kRing + kUsedWords * size_];
    return static_cast<uint16_t>(to - event - 1) < static_cast<uint16_t>(to - from);
}

void Queue::notify() {
    if (added_ == told_) {
        return;
    }
    full_fence();
    if (wants_notification(told_, added_)) {
        device_->notify(index_);
        ++notifications_;
    }
    told_ = added_;
}

uint16_t Queue::device_index() const {
    return used_[kIndex];
}

// Section 2.7.7: an interrupt for the next used buffer.
void Queue::ask_for_interrupt() {
    if (device_->has(kRingEventIndex)) {
        available_[kRing + size_] = taken_;
        full_fence();
    }
}

// Section 2.7.14. The end of the ring is reached only after one more look behind the request for an
// interrupt: a buffer that was used in between raises none.
bool Queue::take(Used& used) {
    if (device_->uses_interrupts()) {
        if (looked_ && device_->interrupts() == seen_interrupts_) {
            return false;
        }
        looked_ = false;
        const uint64_t interrupts = device_->interrupts();
        if (device_index() == taken_) {
            ask_for_interrupt();
            if (device_index() == taken_) {
                looked_ = true;
                seen_interrupts_ = interrupts;
                return false;
            }
        }
    } else if (device_index() == taken_) {
        return false;
    }
    const auto done = static_cast<uint16_t>(device_index() - taken_);
    const volatile uint16_t* element = &used_[kRing + kUsedWords * (taken_ % size_)];
    const uint32_t id = element[0] | uint32_t{element[1]} << 16;
    const uint32_t bytes = element[2] | uint32_t{element[3]} << 16;
    if (done > in_flight_ || id >= size_ || requests_[id].entries == 0 || bytes > requests_[id].room) {
        fail(Fields()
                 .text("reason", "bad_used_element")
                 .number("queue", index_)
                 .number("index", taken_)
                 .number("done", done)
                 .number("in_flight", in_flight_)
                 .number("id", id)
                 .number("bytes", bytes));
    }
    used = {requests_[id].token, bytes};
    release(id, requests_[id].entries);
    ++taken_;
    return true;
}

void Queue::check_patience(uint64_t patience, bool owed) {
    const bool has_used = device_index() != taken_;
    const uint64_t now = boot_cpu.timer_ticks;
    if (waits_for_ != taken_ || !(has_used || (owed && in_flight_ != 0))) {
        waits_for_ = taken_;
        waits_since_ = now;
        return;
    }
    if (now - waits_since_ <= patience) {
        return;
    }
    device_->check_status();
    fail(Fields()
             .text("reason", has_used ? "lost_interrupt" : "lost_request")
             .number("queue", index_)
             .number("in_flight", in_flight_)
             .number("interrupts", device_->interrupts())
             .hex("interrupt_status", device_->read(VIRTIO_INTERRUPT_STATUS))
             .number("notifications", notifications_));
}

void Queue::release(uint32_t head, uint32_t entries) {
    uint32_t last = head;
    for (uint32_t i = 1; i < entries; ++i) {
        last = descriptors_[last].next;
    }
    descriptors_[last].next = static_cast<uint16_t>(first_free_);
    first_free_ = head;
    free_ += entries;
    requests_[head].entries = 0;
    --in_flight_;
}

}  // namespace guest::virtio
