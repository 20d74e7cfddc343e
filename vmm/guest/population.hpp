// Which guest pages have ever been given host memory: the others read as zero and need not be read at all.
#pragma once

#include "vmm/base/bitmap.hpp"
#include "vmm/base/result.hpp"
#include "vmm/base/unique_fd.hpp"
#include "vmm/guest/memory.hpp"

namespace vmm {

// Populated means present or swapped out, and not the kernel's shared zero page. Never mincore(2), which
// calls a swapped page absent.
class PopulationScan {
  public:
    // Opens /proc/self/pagemap and finds out whether the kernel has PAGEMAP_SCAN (Linux 6.7).
    static Result<PopulationScan> create();

    // Sets the bits of the populated pages of the range, which must be RAM; clears none. Any thread.
    Result<void> scan(const GuestMemory& memory, PageRange range, Bitmap& populated) const;

    // The same by reading pagemap entries, as kernels before 6.7 need it.
    Result<void> scan_by_reading(const GuestMemory& memory, PageRange range, Bitmap& populated) const;

  private:
    PopulationScan(UniqueFd pagemap, bool has_ioctl) : pagemap_(std::move(pagemap)), has_ioctl_(has_ioctl) {}

    UniqueFd pagemap_;
    bool has_ioctl_;
};

// Of all RAM, once.
Result<Bitmap> populated_pages(const GuestMemory& memory);

}  // namespace vmm
