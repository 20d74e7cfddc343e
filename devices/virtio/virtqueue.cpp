#include "devices/virtio/virtqueue.hpp"

#include "devices/virtio/spec.hpp"
#include "vmm/base/check.hpp"

namespace devices::virtio {

using vmm::Code;
using vmm::fail;
using vmm::Gpa;
using vmm::Result;

namespace {

// 2.7.5
constexpr std::uint64_t kDescriptorBytes = 16;
constexpr std::uint16_t kNext = 1;
constexpr std::uint16_t kWrite = 2;
constexpr std::uint16_t kIndirect = 4;
// 2.7.6 and 2.7.8: both rings begin with flags and an index, 16 bits each.
constexpr std::uint64_t kIndexAt = 2;
constexpr std::uint64_t kRingAt = 4;
constexpr std::uint64_t kAvailableBytes = 2;
constexpr std::uint64_t kUsedBytes = 8;
constexpr std::uint16_t kNoInterrupt = 1;  // flags of the available ring

}  // namespace

std::size_t Segments::read(const vmm::GuestMemory& memory, std::uint64_t offset,
                           std::span<std::byte> to) const {
    return for_each(offset, to.size(), [&](Gpa gpa, std::size_t at, std::size_t count) {
        VERIFY(memory.read(gpa, to.subspan(at, count)).has_value());
    });
}

std::size_t Segments::write(vmm::GuestMemory& memory, std::uint64_t offset,
                            std::span<const std::byte> from) const {
    return for_each(offset, from.size(), [&](Gpa gpa, std::size_t at, std::size_t count) {
        VERIFY(memory.write(gpa, from.subspan(at, count)).has_value());
    });
}

void VirtQueue::set_features(std::uint64_t features) {
    indirect_ = (features & kFeatureIndirectDesc) != 0;
    event_idx_ = (features & kFeatureEventIdx) != 0;
}

Result<std::uint16_t> VirtQueue::available_index() const {
    return memory_.load_ordered<std::uint16_t>(Gpa{state_.available + kIndexAt});
}

Result<std::optional<Chain>> VirtQueue::pop() {
    const auto waiting = static_cast<std::uint16_t>(TRY(available_index()) - state_.next_available);
    if (waiting == 0) {
        return std::nullopt;
    }
    if (waiting > state_.size) {
        return fail(Code::invalid, "the available ring of {} entries has {} waiting", state_.size, waiting);
    }
    const std::uint64_t slot = state_.next_available % state_.size;
    Chain chain;
    chain.head =
        TRY(memory_.load_ordered<std::uint16_t>(Gpa{state_.available + kRingAt + kAvailableBytes * slot}));
    ++state_.next_available;
    TRY(walk(chain, Gpa{state_.descriptors}, state_.size, chain.head, false));
    return chain;
}

void VirtQueue::unpop(std::uint16_t count) {
    state_.next_available = static_cast<std::uint16_t>(state_.next_available - count);
}

Result<VirtQueue::Descriptor> VirtQueue::descriptor(Gpa table, std::uint32_t index) const {
    std::array<std::byte, kDescriptorBytes> raw;
    TRY(memory_.read(table + kDescriptorBytes * index, raw));
    return Descriptor{vmm::load_le<std::uint64_t>(raw.data()), vmm::load_le<std::uint32_t>(raw.data() + 8),
                      vmm::load_le<std::uint16_t>(raw.data() + 12),
                      vmm::load_le<std::uint16_t>(raw.data() + 14)};
}

Result<void> VirtQueue::walk(Chain& chain, Gpa table, std::uint32_t table_size, std::uint32_t first,
                             bool indirect) const {
    std::uint32_t index = first;
    // A chain that visits a descriptor twice is longer than its table.
    for (std::uint32_t count = 0; count < table_size; ++count) {
        if (index >= table_size) {
            return fail(Code::invalid, "descriptor {} of a table of {}", index, table_size);
        }
        const Descriptor found = TRY(descriptor(table, index));
        if ((found.flags & kIndirect) != 0) {
            // 2.7.5.3.1: only where negotiated, not within a table, and not with NEXT.
            if (!indirect_ || indirect || (found.flags & kNext) != 0) {
                return fail(Code::invalid, "descriptor {} is indirect where none may be", index);
            }
            if (found.size == 0 || found.size % kDescriptorBytes != 0 ||
                found.size / kDescriptorBytes > kMaxPieces) {
                return fail(Code::invalid, "an indirect table of {} bytes", found.size);
            }
            return walk(chain, Gpa{found.address}, static_cast<std::uint32_t>(found.size / kDescriptorBytes),
                        0, true);
        }
        TRY(add(chain, found));
        if ((found.flags & kNext) == 0) {
            return {};
        }
        index = found.next;
    }
    return fail(Code::invalid, "a descriptor chain without end");
}

Result<void> VirtQueue::add(Chain& chain, const Descriptor& found) const {
    if (found.size == 0) {
        return {};
    }
    if (!memory_.contains(Gpa{found.address}, found.size)) {
        return fail(Code::invalid, "a descriptor names {} bytes at {:#x}, which are not RAM", found.size,
                    found.address);
    }
    if ((found.flags & kWrite) != 0) {
        chain.writable.add({Gpa{found.address}, found.size});
    } else if (chain.writable.size() != 0) {
        return fail(Code::invalid, "a readable descriptor after a writable one");  // 2.7.4.2
    } else {
        chain.readable.add({Gpa{found.address}, found.size});
    }
    return {};
}

Result<void> VirtQueue::push(std::uint16_t head, std::uint32_t written) {
    if (!state_.ready) {
        return fail(Code::invalid, "the queue was taken away with requests in it");
    }
    const Gpa element{state_.used + kRingAt + kUsedBytes * (state_.next_used % state_.size)};
    TRY(memory_.store(element, std::uint32_t{head}));
    TRY(memory_.store(element + sizeof(std::uint32_t), written));
    ++state_.next_used;
    return memory_.store_ordered(Gpa{state_.used + kIndexAt}, state_.next_used);
}

Result<bool> VirtQueue::ask_for_notification() {
    if (event_idx_) {
        // 2.7.10: avail_event, behind the used ring.
        // The driver stores its index, then reads ours; we the other way round. One of the two sees the
        // other's.
        TRY(memory_.store_ordered(Gpa{state_.used + kRingAt + kUsedBytes * state_.size},
                                  state_.next_available));
    }
    return TRY(available_index()) != state_.next_available;
}

Result<bool> VirtQueue::wants_interrupt() {
    const std::uint16_t old = std::exchange(signalled_, state_.next_used);
    if (old == state_.next_used) {
        return false;
    }
    // As above: push() has stored our index.
    if (!event_idx_) {
        const auto flags = TRY(memory_.load_ordered<std::uint16_t>(Gpa{state_.available}));
        return (flags & kNoInterrupt) == 0;
    }
    // 2.7.7.2: used_event, behind the available ring, is among those pushed.
    const auto event = TRY(
        memory_.load_ordered<std::uint16_t>(Gpa{state_.available + kRingAt + kAvailableBytes * state_.size}));
    return static_cast<std::uint16_t>(state_.next_used - event - 1) <
           static_cast<std::uint16_t>(state_.next_used - old);
}

}  // namespace devices::virtio
