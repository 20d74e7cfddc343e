#include "vmm/machine/boot_image.hpp"

#include <algorithm>

namespace vmm {

namespace {

Result<void> write_zeros(GuestMemory& memory, std::uint64_t start, std::uint64_t end) {
    static constexpr std::array<std::byte, 16 * kPageSize> kZeros{};
    while (start < end) {
        const std::uint64_t size = std::min<std::uint64_t>(end - start, kZeros.size());
        TRY(memory.write(Gpa{start}, std::span{kZeros}.first(size)));
        start += size;
    }
    return {};
}

// Whole pages are dropped rather than written, so that a large .bss takes no memory of the host.
Result<void> zero(GuestMemory& memory, std::uint64_t start, std::uint64_t end) {
    const std::uint64_t first = (start + kPageSize - 1) / kPageSize;
    const std::uint64_t last = end / kPageSize;
    if (first < last && memory.contains({first, last - first}) && memory.discard({first, last - first})) {
        TRY(write_zeros(memory, start, first * kPageSize));
        return write_zeros(memory, last * kPageSize, end);
    }
    return write_zeros(memory, start, end);
}

}  // namespace

Result<void> place(const BootImage& image, GuestMemory& memory) {
    for (std::size_t i = 0; i < image.segments.size(); ++i) {
        const BootSegment& segment = image.segments[i];
        const std::string where = fmt::format("boot segment {} at {:#x}", i, segment.gpa);
        const std::uint64_t data_end = segment.gpa + segment.data.size();
        if (data_end < segment.gpa || segment.zero_bytes > UINT64_MAX - kPageSize - data_end) {
            return fail(Code::invalid, "{}: it wraps around", where);
        }
        TRY(memory.write(Gpa{segment.gpa}, segment.data).context(where));
        TRY(zero(memory, data_end, data_end + segment.zero_bytes).context(where));
    }
    return {};
}

}  // namespace vmm
