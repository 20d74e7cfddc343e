#include "vmm/guest/bus.hpp"

#include <algorithm>
#include <iterator>

namespace vmm {

Result<void> Bus::insert(std::uint64_t start, std::uint64_t size, BusDevice& device) {
    if (size == 0 || start + (size - 1) < start) {
        return fail(Code::invalid, "bus range at {:#x} of {} bytes is empty or wraps", start, size);
    }
    const auto next = entries_.lower_bound(start);
    const bool hits_next = next != entries_.end() && next->first - start < size;
    const bool hits_previous =
        next != entries_.begin() && start - std::prev(next)->first < std::prev(next)->second.size;
    if (hits_next || hits_previous) {
        return fail(Code::invalid, "bus range at {:#x} of {} bytes overlaps another", start, size);
    }
    entries_.emplace(start, Entry{size, &device});
    return {};
}

Bus::Hit Bus::find(std::uint64_t address, std::size_t size) {
    auto entry = entries_.upper_bound(address);
    if (entry != entries_.begin()) {
        --entry;
        const std::uint64_t offset = address - entry->first;
        if (offset < entry->second.size && size <= entry->second.size - offset) {
            return {entry->second.device, offset};
        }
    }
    unassigned_.fetch_add(1, std::memory_order_relaxed);
    return {};
}

void Bus::read(std::uint64_t address, std::span<std::byte> data) {
    const Hit hit = find(address, data.size());
    if (hit.device == nullptr) {
        std::fill(data.begin(), data.end(), std::byte{0xff});
        return;
    }
    hit.device->read(hit.offset, data);
}

void Bus::write(std::uint64_t address, std::span<const std::byte> data) {
    const Hit hit = find(address, data.size());
    if (hit.device != nullptr) {
        hit.device->write(hit.offset, data);
    }
}

}  // namespace vmm
