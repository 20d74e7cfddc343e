#pragma once

#include <stdint.h>

namespace guest {

inline constexpr uint64_t kPageSize = 4096;
inline constexpr uint64_t kWordsPerPage = kPageSize / sizeof(uint64_t);

struct Page {
    uint64_t words[kWordsPerPage];
};

// A run of guest RAM, in bytes.
struct Extent {
    uint64_t start;
    uint64_t size;
};

// Filled by the boot protocol's file (boot_pvh.cpp or boot_multiboot.cpp) from its memory map.
struct BootInfo {
    static constexpr uint64_t kMaxExtents = 16;

    Extent ram[kMaxExtents];
    uint64_t extents;
    const char* command_line;

    void add_ram(uint64_t start, uint64_t size);
};

void read_boot_info(BootInfo& info);

// Numbered pages over the RAM extents they come from; a pointer is also the guest-physical address.
class Pages {
  public:
    Page& operator[](uint64_t index) const {
        const Extent* extent = extents_;
        while (index >= extent->size / kPageSize) {
            index -= extent->size / kPageSize;
            ++extent;
        }
        return reinterpret_cast<Page*>(extent->start)[index];
    }
    uint64_t count() const { return count_; }

  private:
    friend class Memory;

    Extent extents_[BootInfo::kMaxExtents] = {};
    uint64_t count_ = 0;
};

// Owns all RAM above the image, in whole 2 MiB blocks, and hands it out once.
class Memory {
  public:
    // Maps every block and the APIC pages (identity, user accessible) and loads the page tables.
    void map(const BootInfo& info);

    // Maps the 2 MiB around a device's registers. Only after map().
    void map_device(uint64_t address);

    // Makes `table`, a page of it, the page table of the 2 MiB at `address`, which nothing else uses. Only
    // after map().
    void map_table(uint64_t address, uint64_t table);
    // Loads the page tables anew: what was changed in them counts.
    void reload() const;

    // The sum of the boot protocol's RAM, rounded up: holes below 1 MiB do not show.
    uint64_t mib() const { return mib_; }

    // Not enough RAM ends the guest with FAIL. Contents are whatever the host gave.
    Pages take(uint64_t pages);
    // `bytes` in one piece, zeroed.
    void* take_contiguous(uint64_t bytes);
    // Copies to the start of the last whole page of RAM below 640 KiB, which is not mapped otherwise, and
    // returns its address. Only once: the page is the same.
    uint64_t copy_low(const void* from, uint64_t bytes) const;

  private:
    Extent extents_[BootInfo::kMaxExtents] = {};
    uint64_t count_ = 0;
    uint64_t mib_ = 0;
    uint64_t low_page_ = 0;
};

Memory& memory();

}  // namespace guest
