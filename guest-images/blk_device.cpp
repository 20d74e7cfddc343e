#include "blk_device.hpp"

#include "runtime/guest.hpp"
#include "runtime/memory.hpp"

namespace workload {
namespace {

using guest::Fields;
using guest::virtio::Buffer;

constexpr uint32_t kDeviceId = 2;

// Section 5.2.3.
constexpr uint64_t kReadOnly = uint64_t{1} << 5;
constexpr uint64_t kFlush = uint64_t{1} << 9;
constexpr uint64_t kDiscard = uint64_t{1} << 13;
constexpr uint64_t kWriteZeroes = uint64_t{1} << 14;

// Section 5.2.4.
constexpr uint32_t kConfigCapacity = 0;
constexpr uint32_t kConfigMaxDiscardSectors = 36;
constexpr uint32_t kConfigDiscardAlignment = 44;
constexpr uint32_t kConfigMaxZeroesSectors = 48;
constexpr uint32_t kConfigZeroesMayUnmap = 56;

constexpr uint32_t kRangeUnmap = 1;
constexpr uint32_t kIdBytes = 20;

uint64_t address_of(const volatile void* pointer) {
    return reinterpret_cast<uint64_t>(pointer);
}

}  // namespace

void BlkDevice::start(const guest::Parameters& parameters, uint32_t slots) {
    device_.find(parameters, kDeviceId);
    device_.negotiate(kReadOnly | kFlush | kDiscard | kWriteZeroes);
    queue_.set_up(device_, 0);
    sectors_ = device_.config64(kConfigCapacity);
    slots_ = static_cast<Slot*>(guest::memory().take_contiguous(slots * sizeof(Slot)));
    for (uint32_t i = 0; i < slots; ++i) {
        slots_[i].data = guest::memory().take_contiguous(kBlockBytes);
    }
    device_.start();
}

uint32_t BlkDevice::most_in_flight() const {
    return device_.has(guest::virtio::kRingIndirect) ? queue_.size() : queue_.size() / (kMaxPieces + 2);
}

bool BlkDevice::read_only() const {
    return device_.has(kReadOnly);
}

bool BlkDevice::can_flush() const {
    return device_.has(kFlush);
}

bool BlkDevice::can_discard() const {
    if (!device_.has(kDiscard) || device_.config32(kConfigMaxDiscardSectors) < kBlockSectors) {
        return false;
    }
    const uint32_t alignment = device_.config32(kConfigDiscardAlignment);
    return alignment == 0 || kBlockSectors % alignment == 0;
}

bool BlkDevice::can_write_zeroes() const {
    return device_.has(kWriteZeroes) && device_.config32(kConfigMaxZeroesSectors) >= kBlockSectors;
}

// Section 2.6.4.1: a device may not assume anything about where buffers end.
uint32_t BlkDevice::cut(const Slot& slot, uint32_t bytes, bool written_by_device, Buffer* pieces) {
    uint64_t address = address_of(slot.data);
    const auto wanted = static_cast<uint32_t>(1 + random_.below(kMaxPieces));
    uint32_t count = 0;
    while (bytes != 0) {
        const bool last = count + 1 == wanted || bytes <= kSectorBytes;
        const uint32_t piece = last ? bytes : static_cast<uint32_t>(1 + random_.below(bytes - 1));
        pieces[count++] = {address, piece, written_by_device};
        address += piece;
        bytes -= piece;
    }
    return count;
}

void BlkDevice::submit(uint32_t index, BlkType type, uint64_t sector, uint32_t bytes) {
    Slot& slot = slots_[index];
    // Section 5.2.6.1: the sector of a flush is zero; discard and write zeroes have theirs in the range.
    const bool transfer = type == BlkType::read || type == BlkType::write;
    slot.header = {static_cast<uint32_t>(type), 0, transfer ? sector : 0};
    slot.status = BlkStatus::none;
    Buffer buffers[guest::virtio::Queue::kMaxBuffers];
    uint32_t count = 0;
    buffers[count++] = {address_of(&slot.header), sizeof(Header), false};
    const bool from_device = type == BlkType::read || type == BlkType::get_id;
    if (type == BlkType::discard || type == BlkType::write_zeroes) {
        const bool unmap = type == BlkType::write_zeroes && device_.config8(kConfigZeroesMayUnmap) != 0 &&
                           random_.below(2) != 0;
        *static_cast<Range*>(slot.data) = {sector, kBlockSectors, unmap ? kRangeUnmap : 0};
        buffers[count++] = {address_of(slot.data), sizeof(Range), false};
    } else if (transfer) {
        count += cut(slot, bytes, from_device, &buffers[count]);
    } else if (type == BlkType::get_id) {
        buffers[count++] = {address_of(slot.data), kIdBytes, true};
    }
    buffers[count++] = {address_of(&slot.status), 1, true};
    slot.returned = type == BlkType::read ? bytes + 1 : 1;
    if (!queue_.add(buffers, count, index)) {
        guest::fail(Fields().text("reason", "queue_full").number("in_flight", queue_.in_flight()));
    }
}

bool BlkDevice::take(Completion& completion) {
    guest::virtio::Queue::Used used;
    if (!queue_.take(used)) {
        return false;
    }
    const Slot& slot = slots_[used.token];
    completion = {used.token, slot.status};
    if (completion.status == BlkStatus::none ||
        (completion.status == BlkStatus::ok && used.bytes < slot.returned)) {
        guest::fail(Fields()
                        .text("reason", "bad_completion")
                        .number("type", slot.header.type)
                        .number("sector", slot.header.sector)
                        .number("status", static_cast<uint64_t>(completion.status))
                        .number("want_bytes", slot.returned)
                        .number("bytes", used.bytes));
    }
    return true;
}

}  // namespace workload
