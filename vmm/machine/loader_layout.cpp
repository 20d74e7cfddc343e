#include "vmm/machine/loader_layout.hpp"

#include <algorithm>

namespace vmm {

namespace {

// The first page is where real mode keeps its interrupt table, and where a null pointer leads.
constexpr std::uint64_t kLowMemoryStart = kPageSize;

}  // namespace

BootLayout::BootLayout(std::span<const RegionConfig> memory) {
    for (const RegionConfig& region : memory) {
        const std::uint64_t start = region.start.value;
        const std::uint64_t end = start + region.size;
        if (start < kLowMemoryEnd) {
            map_.push_back({start, std::min(end, kLowMemoryEnd) - start, MapEntry::Type::ram});
            map_.push_back({kLowMemoryEnd, kHighMemoryStart - kLowMemoryEnd, MapEntry::Type::reserved});
            firmware_end_ = std::min(end, kHighMemoryStart);
        }
        if (end > kHighMemoryStart) {
            const std::uint64_t high = std::max(start, kHighMemoryStart);
            map_.push_back({high, end - high, MapEntry::Type::ram});
        }
    }
}

bool BootLayout::is_ram(std::uint64_t start, std::uint64_t size) const {
    return std::any_of(map_.begin(), map_.end(), [&](const MapEntry& entry) {
        return entry.type == MapEntry::Type::ram && start >= entry.start &&
               start - entry.start < entry.size && size <= entry.size - (start - entry.start);
    });
}

const BootLayout::Claim* BootLayout::overlapping(std::uint64_t start, std::uint64_t size) const {
    const auto claim = std::find_if(claims_.begin(), claims_.end(), [&](const Claim& other) {
        return start < other.start + other.size && other.start < start + size;
    });
    return claim == claims_.end() ? nullptr : &*claim;
}

Result<void> BootLayout::add(BootImage& image, std::uint64_t gpa, std::span<const std::byte> data,
                             std::uint64_t size, const std::string& what) {
    return add(image, gpa, Bytes{data.begin(), data.end()}, size, what);
}

Result<void> BootLayout::add(BootImage& image, std::uint64_t gpa, Bytes data, std::uint64_t size,
                             const std::string& what) {
    if (!is_ram(gpa, size)) {
        return fail(
            Code::invalid,
            "{}: {} bytes at {:#x} are not all RAM of this machine; give it more memory or link it elsewhere",
            what, size, gpa);
    }
    return claim(image, gpa, std::move(data), size, what);
}

Result<void> BootLayout::add_firmware(BootImage& image, std::uint64_t gpa, Bytes data,
                                      const std::string& what) {
    if (gpa < kFirmwareStart || gpa > firmware_end_ || data.size() > firmware_end_ - gpa) {
        return fail(Code::invalid,
                    "{}: {} bytes at {:#x} do not fit the firmware area, which ends at {:#x}; give the "
                    "machine fewer devices, or 1 MiB of memory",
                    what, data.size(), gpa, firmware_end_);
    }
    const std::uint64_t size = data.size();
    return claim(image, gpa, std::move(data), size, what);
}

Result<void> BootLayout::claim(BootImage& image, std::uint64_t gpa, Bytes data, std::uint64_t size,
                               const std::string& what) {
    if (const Claim* other = overlapping(gpa, size)) {
        return fail(Code::invalid, "{}: {} bytes at {:#x} overlap {} at {:#x}; rebuild the image", what, size,
                    gpa, other->what, other->start);
    }
    if (image.segments.size() >= BootImage::kMaxSegments) {
        return fail(Code::limit, "{}: an image has at most {} segments", what, BootImage::kMaxSegments);
    }
    claims_.push_back({gpa, size, what});
    const std::uint64_t zero_bytes = size - data.size();
    image.segments.push_back({gpa, std::move(data), zero_bytes});
    return {};
}

Result<std::uint64_t> BootLayout::find_below(std::uint64_t end, std::uint64_t size,
                                             const std::string& what) const {
    for (auto entry = map_.rbegin(); entry != map_.rend(); ++entry) {
        if (entry->type != MapEntry::Type::ram) {
            continue;
        }
        const std::uint64_t first = std::max(entry->start, kLowMemoryStart);
        // Down from the top; where a segment is in the way, on below it.
        std::uint64_t top = std::min(end, entry->start + entry->size);
        while (top >= first && top - first >= size) {
            const std::uint64_t start = (top - size) & ~(kPageSize - 1);
            if (start < first) {
                break;
            }
            const Claim* other = overlapping(start, size);
            if (other == nullptr) {
                return start;
            }
            top = other->start;
        }
    }
    return fail(Code::invalid, "{}: no room for {} bytes of RAM below {:#x}; {}", what, size, end,
                end <= kLowMemoryEnd ? "link the image at 1 MiB or above" : "give the machine more memory");
}

bool BootLayout::covers(std::uint64_t gpa) const {
    return overlapping(gpa, 1) != nullptr;
}

}  // namespace vmm
