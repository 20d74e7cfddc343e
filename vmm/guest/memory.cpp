#include "vmm/guest/memory.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

namespace vmm {

namespace {

constexpr std::uint64_t kHoleStart = std::uint64_t{3} << 30;
constexpr std::uint64_t kHoleEnd = std::uint64_t{4} << 30;
constexpr std::uint64_t kRegionAlignment = Bitmap::kWordBits * kPageSize;
// 46 bits of physical address: more than any host gives a guest, and it bounds every table over pages.
constexpr std::uint64_t kAddressLimit = std::uint64_t{1} << 46;

}  // namespace

std::vector<RegionConfig> pc_memory_map(std::uint64_t ram_bytes) {
    std::vector<RegionConfig> map{{Gpa{0}, std::min(ram_bytes, kHoleStart)}};
    if (ram_bytes > kHoleStart) {
        map.push_back({Gpa{kHoleEnd}, ram_bytes - kHoleStart});
    }
    return map;
}

Result<GuestMemory> GuestMemory::create(std::span<const RegionConfig> configs, Backing backing) {
    std::vector<MemoryRegion> regions;
    std::uint64_t end = 0;
    for (const RegionConfig& config : configs) {
        if (config.start.value % kRegionAlignment != 0 || config.size % kPageSize != 0 || config.size == 0 ||
            config.start.value < end || config.start.value > kAddressLimit ||
            config.size > kAddressLimit - config.start.value) {
            return fail(Code::invalid,
                        "memory region at {:#x} of {} bytes: not aligned, empty, overlapping or too high",
                        config.start.value, config.size);
        }
        end = config.start.value + config.size;
        regions.push_back(
            {config.start, TRY(Mapping::anonymous(config.size, backing).context("guest memory"))});
    }
    if (regions.empty()) {
        return fail(Code::invalid, "guest memory without a region");
    }
    return GuestMemory{std::move(regions), end >> kPageShift};
}

GuestMemory::GuestMemory(std::vector<MemoryRegion> regions, std::uint64_t page_limit)
    : regions_(std::move(regions)),
      page_limit_(page_limit),
      device_writes_(std::make_unique<DeviceWriteTracker>(page_limit)) {
}

std::uint64_t GuestMemory::total_pages() const {
    std::uint64_t total = 0;
    for (const MemoryRegion& region : regions_) {
        total += region.pages().count;
    }
    return total;
}

bool GuestMemory::contains(PageRange range) const {
    return range.count != 0 && pages(range).has_value();
}

std::optional<std::span<std::byte>> GuestMemory::bytes_at(Gpa gpa, std::size_t size) const {
    for (const MemoryRegion& region : regions_) {
        const std::span<std::byte> bytes = region.memory.bytes();
        if (gpa >= region.start && gpa.value - region.start.value <= bytes.size() &&
            size <= bytes.size() - (gpa.value - region.start.value)) {
            return bytes.subspan(gpa.value - region.start.value, size);
        }
    }
    return std::nullopt;
}

Result<std::span<std::byte>> GuestMemory::aligned_bytes(Gpa gpa, std::size_t size) const {
    const auto bytes = bytes_at(gpa, size);
    if (!bytes || gpa.value % size != 0) {
        return fail(Code::invalid, "no aligned RAM at {:#x} for {} bytes", gpa.value, size);
    }
    return *bytes;
}

Result<void> GuestMemory::read(Gpa gpa, std::span<std::byte> to) const {
    const auto from = bytes_at(gpa, to.size());
    if (!from) {
        return fail(Code::invalid, "no RAM at {:#x} for {} bytes", gpa.value, to.size());
    }
    if (!to.empty()) {
        std::memcpy(to.data(), from->data(), to.size());
    }
    return {};
}

Result<void> GuestMemory::write(Gpa gpa, std::span<const std::byte> from) {
    const auto to = bytes_at(gpa, from.size());
    if (!to) {
        return fail(Code::invalid, "no RAM at {:#x} for {} bytes", gpa.value, from.size());
    }
    if (from.empty()) {
        return {};
    }
    std::memcpy(to->data(), from.data(), from.size());
    const std::uint64_t first = gpa.value >> kPageShift;
    const std::uint64_t last = (gpa.value + from.size() - 1) >> kPageShift;
    device_writes_->mark({first, last - first + 1});
    return {};
}

std::optional<std::span<std::byte>> GuestMemory::pages(PageRange range) const {
    if (range.first >= page_limit_ || range.count > page_limit_ - range.first) {
        return std::nullopt;
    }
    return bytes_at(Gpa{range.first << kPageShift}, range.count << kPageShift);
}

Result<void> GuestMemory::discard(PageRange range) {
    const auto bytes = pages(range);
    if (!bytes) {
        return fail(Code::invalid, "pages {}+{} are not RAM", range.first, range.count);
    }
    if (::madvise(bytes->data(), bytes->size(), MADV_DONTNEED) != 0) {
        return fail_errno(Code::io, "discard pages {}+{}", range.first, range.count);
    }
    device_writes_->mark(range);
    return {};
}

}  // namespace vmm
