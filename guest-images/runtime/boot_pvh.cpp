#include "runtime/guest.hpp"
#include "runtime/memory.hpp"

extern "C" const uint32_t boot_address;

namespace guest {
namespace {

// The Xen header public/arch-x86/hvm/start_info.h.
constexpr uint32_t kStartInfoMagic = 0x336ec578;
constexpr uint32_t kMemoryTypeRam = 1;

struct StartInfo {
    uint32_t magic;
    uint32_t version;
    uint32_t flags;
    uint32_t module_count;
    uint64_t module_list;
    uint64_t command_line;
    uint64_t rsdp;
    uint64_t memory_map;  // from version 1 on
    uint32_t memory_map_entries;
    uint32_t reserved;
};

struct MemoryMapEntry {
    uint64_t address;
    uint64_t size;
    uint32_t type;
    uint32_t reserved;
};

}  // namespace

void read_boot_info(BootInfo& info) {
    const auto* start_info = reinterpret_cast<const StartInfo*>(uint64_t{boot_address});
    if (start_info->magic != kStartInfoMagic) {
        fail(Fields().text("reason", "no_pvh_start_info").hex("magic", start_info->magic));
    }
    if (start_info->version < 1 || start_info->memory_map == 0) {
        fail(Fields().text("reason", "no_pvh_memory_map").number("version", start_info->version));
    }
    const auto* entry = reinterpret_cast<const MemoryMapEntry*>(start_info->memory_map);
    for (uint32_t i = 0; i < start_info->memory_map_entries; ++i, ++entry) {
        if (entry->type == kMemoryTypeRam) {
            info.add_ram(entry->address, entry->size);
        }
    }
    if (start_info->command_line != 0) {
        info.command_line = reinterpret_cast<const char*>(start_info->command_line);
    }
}

}  // namespace guest
