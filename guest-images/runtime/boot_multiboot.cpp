#include "runtime/guest.hpp"
#include "runtime/memory.hpp"

extern "C" const uint32_t boot_magic;
extern "C" const uint32_t boot_address;

namespace guest {
namespace {

// Multiboot specification 0.6.96, section 3.3.
constexpr uint32_t kLoaderMagic = 0x2badb002;
constexpr uint32_t kFlagCommandLine = 1 << 2;
constexpr uint32_t kFlagMemoryMap = 1 << 6;
constexpr uint32_t kMemoryTypeRam = 1;

struct MultibootInfo {
    uint32_t flags;
    uint32_t memory_lower;
    uint32_t memory_upper;
    uint32_t boot_device;
    uint32_t command_line;
    uint32_t module_count;
    uint32_t modules;
    uint32_t symbols[4];
    uint32_t memory_map_length;
    uint32_t memory_map;
};

struct [[gnu::packed]] MemoryMapEntry {
    uint32_t size;  // of the rest of the entry
    uint64_t address;
    uint64_t length;
    uint32_t type;
};

// Boot loaders put the image's name before the arguments; none of the parameters is affected.
const char* text_at(uint32_t address) {
    return reinterpret_cast<const char*>(uint64_t{address});
}

}  // namespace

void read_boot_info(BootInfo& info) {
    if (boot_magic != kLoaderMagic) {
        fail(Fields().text("reason", "no_multiboot_loader").hex("magic", boot_magic));
    }
    const auto* multiboot = reinterpret_cast<const MultibootInfo*>(uint64_t{boot_address});
    if ((multiboot->flags & kFlagMemoryMap) == 0) {
        fail(Fields().text("reason", "no_multiboot_memory_map").hex("flags", multiboot->flags));
    }
    const uint64_t end = uint64_t{multiboot->memory_map} + multiboot->memory_map_length;
    for (uint64_t at = multiboot->memory_map; at < end;) {
        const auto* entry = reinterpret_cast<const MemoryMapEntry*>(at);
        if (entry->type == kMemoryTypeRam) {
            info.add_ram(entry->address, entry->length);
        }
        at += entry->size + sizeof(entry->size);
    }
    if ((multiboot->flags & kFlagCommandLine) != 0) {
        info.command_line = text_at(multiboot->command_line);
    }
}

}  // namespace guest
