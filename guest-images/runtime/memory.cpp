#include "runtime/memory.hpp"

#include <stddef.h>

#include "runtime/cpu.hpp"
#include "runtime/guest.hpp"

extern "C" {
extern char image_end[];
extern uint64_t boot_pml4[];
extern uint64_t page_tables;
void* memset(void* to, int value, size_t size);
void* memcpy(void* to, const void* from, size_t size);
}

namespace guest {
namespace {

constexpr uint64_t kBlockSize = 2 << 20;
constexpr uint64_t kImageBlock = 0x200000;
constexpr uint64_t kEntries = 512;
constexpr uint64_t kLowMemoryEnd = 0xa0000;

// SDM volume 3 section 4.5: present, writable, user; a 2 MiB page; write-through and cache disabled.
constexpr uint64_t kEntryTable = 0x07;
constexpr uint64_t kEntryBlock = 0x87;
constexpr uint64_t kEntryDevice = 0x9f;

// Page tables come from what the image leaves of its own block, which boot.S has mapped.
class PageTables {
  public:
    // Before everything else.
    void start() {
        next_ = reinterpret_cast<uint64_t>(image_end);
        pml4_ = allocate();
    }

    uint64_t root() const { return reinterpret_cast<uint64_t>(pml4_); }

    // Nothing was mapped there before, so no TLB needs to know.
    void map_block(uint64_t address, uint64_t flags) { map(address, address | flags); }
    // The entry for the 2 MiB at `address`.
    void map(uint64_t address, uint64_t value) {
        uint64_t* pdpt = below(pml4_, address >> 39);
        uint64_t* pd = below(pdpt, address >> 30);
        pd[(address >> 21) % kEntries] = value;
    }

  private:
    uint64_t* allocate() {
        if (next_ == kImageBlock + kBlockSize) {
            fail(Fields().text("reason", "out_of_page_tables"));
        }
        auto* table = reinterpret_cast<uint64_t*>(next_);
        next_ += kPageSize;
        memset(table, 0, kPageSize);
        return table;
    }

    uint64_t* below(uint64_t* table, uint64_t index) {
        uint64_t& entry = table[index % kEntries];
        if (entry == 0) {
            entry = reinterpret_cast<uint64_t>(allocate()) | kEntryTable;
        }
        return reinterpret_cast<uint64_t*>(entry & ~(kPageSize - 1));
    }

    uint64_t next_ = 0;
    uint64_t* pml4_ = nullptr;
};

constinit Memory the_memory;
constinit PageTables tables;

void load(uint64_t root) {
    call_ring0(RING0_LOAD_PAGE_TABLES, root);
}

// The last whole page of it below 640 KiB; 0 if there is none.
uint64_t last_low_page(const Extent& ram) {
    const uint64_t ram_end = ram.start + ram.size;
    const uint64_t end = (ram_end < kLowMemoryEnd ? ram_end : kLowMemoryEnd) / kPageSize * kPageSize;
    return end >= kPageSize && end - kPageSize >= ram.start ? end - kPageSize : 0;
}

}  // namespace

void BootInfo::add_ram(uint64_t start, uint64_t size) {
    if (extents == kMaxExtents) {
        fail(Fields().text("reason", "too_many_ram_extents"));
    }
    ram[extents++] = {start, size};
}

void Memory::map(const BootInfo& info) {
    tables.start();
    bool image_is_ram = false;
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < info.extents; ++i) {
        const uint64_t end = (info.ram[i].start + info.ram[i].size) / kBlockSize * kBlockSize;
        uint64_t start = (info.ram[i].start + kBlockSize - 1) / kBlockSize * kBlockSize;
        bytes += info.ram[i].size;
        const uint64_t low_page = last_low_page(info.ram[i]);
        low_page_ = low_page > low_page_ ? low_page : low_page_;
        for (uint64_t block = start; block < end; block += kBlockSize) {
            tables.map_block(block, kEntryBlock);
        }
        if (start <= kImageBlock && end > kImageBlock) {
            image_is_ram = true;
            start = kImageBlock + kBlockSize;
        }
        if (start < end) {
            extents_[count_++] = {start, end - start};
        }
    }
    if (!image_is_ram) {
        fail(Fields().text("reason", "image_not_in_ram"));
    }
    mib_ = (bytes + (1 << 20) - 1) >> 20;
    tables.map_block(LAPIC_BASE, kEntryDevice);
    tables.map_block(IOAPIC_BASE, kEntryDevice);
    page_tables = tables.root();
    load(page_tables);
}

void Memory::map_device(uint64_t address) {
    tables.map_block(address / kBlockSize * kBlockSize, kEntryDevice);
}

void Memory::map_table(uint64_t address, uint64_t table) {
    tables.map(address, table | kEntryTable);
}

void Memory::reload() const {
    load(page_tables);
}

Pages Memory::take(uint64_t pages) {
    Pages result;
    uint64_t used = 0;
    for (uint64_t i = 0; i < count_ && result.count_ < pages; ++i) {
        uint64_t size = (pages - result.count_) * kPageSize;
        if (size > extents_[i].size) {
            size = extents_[i].size;
        }
        if (size == 0) {
            continue;
        }
        result.extents_[used++] = {extents_[i].start, size};
        result.count_ += size / kPageSize;
        extents_[i].start += size;
        extents_[i].size -= size;
    }
    if (result.count_ != pages) {
        fail(Fields()
                 .text("reason", "not_enough_memory")
                 .number("wanted_pages", pages)
                 .number("free_pages", result.count_));
    }
    return result;
}

void* Memory::take_contiguous(uint64_t bytes) {
    const uint64_t size = (bytes + kPageSize - 1) / kPageSize * kPageSize;
    for (uint64_t i = 0; i < count_; ++i) {
        if (extents_[i].size >= size) {
            extents_[i].size -= size;
            return memset(reinterpret_cast<void*>(extents_[i].start + extents_[i].size), 0, size);
        }
    }
    fail(Fields().text("reason", "not_enough_memory").number("wanted_bytes", bytes));
}

uint64_t Memory::copy_low(const void* from, uint64_t bytes) const {
    if (low_page_ == 0) {
        fail(Fields().text("reason", "no_low_memory"));
    }
    load(reinterpret_cast<uint64_t>(boot_pml4));
    memcpy(reinterpret_cast<void*>(low_page_), from, bytes);
    load(page_tables);
    return low_page_;
}

Memory& memory() {
    return the_memory;
}

}  // namespace guest
