// PAGEMAP_SCAN as include/uapi/linux/fs.h has it since Linux 6.7 (Documentation/admin-guide/mm/pagemap.rst).
// Declared here because older headers lack it; whether the running kernel has it is asked at run time.
#pragma once

#include <linux/ioctl.h>
#include <linux/types.h>

namespace vmm::abi {

struct page_region {
    __u64 start;  // bytes, inclusive
    __u64 end;    // bytes, exclusive
    __u64 categories;
};

struct pm_scan_arg {
    __u64 size;
    __u64 flags;
    __u64 start;
    __u64 end;
    __u64 walk_end;
    __u64 vec;
    __u64 vec_len;
    __u64 max_pages;
    __u64 category_inverted;
    __u64 category_mask;
    __u64 category_anyof_mask;
    __u64 return_mask;
};

inline constexpr unsigned long kPagemapScan = _IOWR('f', 16, pm_scan_arg);

inline constexpr __u64 kPageIsPresent = 1 << 3;
inline constexpr __u64 kPageIsSwapped = 1 << 4;
inline constexpr __u64 kPageIsPfnZero = 1 << 5;

// Entries of /proc/PID/pagemap.
inline constexpr __u64 kPagemapPresent = __u64{1} << 63;
inline constexpr __u64 kPagemapSwapped = __u64{1} << 62;

}  // namespace vmm::abi
