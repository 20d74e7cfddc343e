#include "vmm/guest/population.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "vmm/guest/pagemap_abi.hpp"

namespace vmm {

Result<PopulationScan> PopulationScan::create() {
    UniqueFd pagemap{::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)};
    if (!pagemap) {
        return fail_errno(Code::io, "open /proc/self/pagemap");
    }
    // An empty scan: EINVAL or ENOTTY where the ioctl is unknown.
    abi::pm_scan_arg probe{};
    probe.size = sizeof probe;
    const bool has_ioctl = ::ioctl(pagemap.get(), abi::kPagemapScan, &probe) == 0;
    return PopulationScan{std::move(pagemap), has_ioctl};
}

Result<void> PopulationScan::scan(const GuestMemory& memory, PageRange range, Bitmap& populated) const {
    if (!has_ioctl_) {
        return scan_by_reading(memory, range, populated);
    }
    const auto bytes = memory.pages(range);
    if (!bytes) {
        return fail(Code::invalid, "pages {}+{} are not RAM", range.first, range.count);
    }
    const auto start = reinterpret_cast<std::uint64_t>(bytes->data());
    const std::uint64_t end = start + bytes->size();
    std::array<abi::page_region, 256> found;
    for (std::uint64_t at = start; at < end;) {
        abi::pm_scan_arg arg{};
        arg.size = sizeof arg;
        arg.start = at;
        arg.end = end;
        arg.vec = reinterpret_cast<std::uint64_t>(found.data());
        arg.vec_len = found.size();
        // Present or swapped, but not the zero page: an inverted category matches when it is absent.
        arg.category_inverted = abi::kPageIsPfnZero;
        arg.category_mask = abi::kPageIsPfnZero;
        arg.category_anyof_mask = abi::kPageIsPresent | abi::kPageIsSwapped;
        arg.return_mask = abi::kPageIsPresent | abi::kPageIsSwapped;
        const int count = ::ioctl(pagemap_.get(), abi::kPagemapScan, &arg);
        if (count < 0) {
            return fail_errno(Code::io, "PAGEMAP_SCAN");
        }
        for (int i = 0; i < count; ++i) {
            const abi::page_region& region = found[static_cast<std::size_t>(i)];
            populated.set_range(range.first + (region.start - start) / kPageSize,
                                (region.end - region.start) / kPageSize);
        }
        if (arg.walk_end <= at) {
            return fail(Code::io, "PAGEMAP_SCAN made no progress");
        }
        at = arg.walk_end;
    }
    return {};
}

Result<void> PopulationScan::scan_by_reading(const GuestMemory& memory, PageRange range,
                                             Bitmap& populated) const {
    const auto bytes = memory.pages(range);
    if (!bytes) {
        return fail(Code::invalid, "pages {}+{} are not RAM", range.first, range.count);
    }
    const std::uint64_t first_entry = reinterpret_cast<std::uint64_t>(bytes->data()) / kPageSize;
    std::array<std::uint64_t, 512> entries;
    for (std::uint64_t done = 0; done < range.count;) {
        const std::uint64_t want = std::min<std::uint64_t>(entries.size(), range.count - done);
        const ssize_t got = ::pread(pagemap_.get(), entries.data(), want * sizeof entries[0],
                                    static_cast<off_t>((first_entry + done) * sizeof entries[0]));
        if (got != static_cast<ssize_t>(want * sizeof entries[0])) {
            return fail_errno(Code::io, "read /proc/self/pagemap");
        }
        for (std::uint64_t i = 0; i < want; ++i) {
            if ((entries[i] & (abi::kPagemapPresent | abi::kPagemapSwapped)) != 0) {
                populated.set(range.first + done + i);
            }
        }
        done += want;
    }
    return {};
}

Result<Bitmap> populated_pages(const GuestMemory& memory) {
    const PopulationScan scan = TRY(PopulationScan::create());
    Bitmap populated{memory.page_limit()};
    for (const MemoryRegion& region : memory.regions()) {
        TRY(scan.scan(memory, region.pages(), populated));
    }
    return populated;
}

}  // namespace vmm
