// GuestMemory: the one place where guest addresses become pointers.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "vmm/base/bytes.hpp"
#include "vmm/base/mapping.hpp"
#include "vmm/base/result.hpp"
#include "vmm/guest/address.hpp"
#include "vmm/guest/dirty.hpp"

namespace vmm {

struct RegionConfig {
    Gpa start;           // a multiple of 256 KiB, so that no word of a dirty bitmap belongs to two regions
    std::uint64_t size;  // bytes, a multiple of 4096
};

// RAM of a PC: from 0, with a hole from 3 GiB to 4 GiB.
std::vector<RegionConfig> pc_memory_map(std::uint64_t ram_bytes);

struct MemoryRegion {
    Gpa start;
    Mapping memory;

    PageRange pages() const { return {start.value >> kPageShift, memory.bytes().size() >> kPageShift}; }
};

// Immutable list of regions; the contents may be read and written by any thread, and by the guest at any
// time.
class GuestMemory {
  public:
    static Result<GuestMemory> create(std::span<const RegionConfig> regions, Backing backing);

    std::span<const MemoryRegion> regions() const { return regions_; }
    // One past the highest frame number: the length of every bitmap and table over pages.
    std::uint64_t page_limit() const { return page_limit_; }
    std::uint64_t total_pages() const;
    // Every page of a non-empty range is RAM, in one region.
    bool contains(PageRange range) const;
    // Every byte is RAM, in one region.
    bool contains(Gpa gpa, std::uint64_t size) const { return bytes_at(gpa, size).has_value(); }

    // Accesses on behalf of the guest's devices and loaders; they may not cross the end of a region. Writes
    // reach device_writes() once they have landed.
    Result<void> read(Gpa gpa, std::span<std::byte> to) const;
    Result<void> write(Gpa gpa, std::span<const std::byte> from);
    template <std::unsigned_integral T>
    Result<T> load(Gpa gpa) const {
        std::array<std::byte, sizeof(T)> raw;
        TRY(read(gpa, raw));
        return load_le<T>(raw.data());
    }
    template <std::unsigned_integral T>
    Result<void> store(Gpa gpa, T value) {
        return write(gpa, bytes_of(value));
    }

    // For rings shared with a running guest (virtio 1.2 section 2.7): one access of the whole value,
    // sequentially consistent with the others, so that a load does not come before an earlier store. The
    // address must be a multiple of its size.
    template <std::unsigned_integral T>
    Result<T> load_ordered(Gpa gpa) const {
        const std::span<std::byte> at = TRY(aligned_bytes(gpa, sizeof(T)));
        return __atomic_load_n(reinterpret_cast<const T*>(at.data()), __ATOMIC_SEQ_CST);
    }
    template <std::unsigned_integral T>
    Result<void> store_ordered(Gpa gpa, T value) {
        const std::span<std::byte> at = TRY(aligned_bytes(gpa, sizeof(T)));
        __atomic_store_n(reinterpret_cast<T*>(at.data()), value, __ATOMIC_SEQ_CST);
        device_writes_->mark({gpa.value >> kPageShift, 1});
        return {};
    }

    // For migration: the host's view of whole pages, nothing is marked dirty. The span must not be kept
    // beyond the call that asked for it.
    std::optional<std::span<std::byte>> pages(PageRange range) const;
    // Drops the contents, so that the pages read as zero and take no host memory; then marks them dirty.
    Result<void> discard(PageRange range);

    DeviceWriteTracker& device_writes() { return *device_writes_; }

  private:
    GuestMemory(std::vector<MemoryRegion> regions, std::uint64_t page_limit);

    std::optional<std::span<std::byte>> bytes_at(Gpa gpa, std::size_t size) const;
    Result<std::span<std::byte>> aligned_bytes(Gpa gpa, std::size_t size) const;

    std::vector<MemoryRegion> regions_;
    std::uint64_t page_limit_;
    std::unique_ptr<DeviceWriteTracker> device_writes_;
};

}  // namespace vmm
