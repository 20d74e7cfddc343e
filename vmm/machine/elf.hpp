// The program headers of an ELF file (System V ABI, edition 4.1, chapters 4 and 5; ELF-64 object file
// format 1.5): little-endian x86 executables only. Pure; the file is hostile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "vmm/base/result.hpp"

namespace vmm {

// One PT_LOAD that takes memory. `data` is part of the file and not longer than `memory_size`.
struct ElfSegment {
    std::uint64_t virtual_address = 0;
    std::uint64_t address = 0;  // physical: where a boot loader puts it
    std::uint64_t memory_size = 0;
    std::span<const std::byte> data;
};

struct ElfFile {
    bool is_64 = false;
    std::uint64_t entry = 0;  // virtual
    std::vector<ElfSegment> segments;
    // Physical entry point from the note XEN_ELFNOTE_PHYS32_ENTRY (xen/include/public/elfnote.h).
    std::optional<std::uint64_t> pvh_entry;
};

// Whether the file claims to be ELF.
bool is_elf(std::span<const std::byte> file);

// The segments share no byte of the file, so what they hold is never more than the file. Where they lie in
// memory is not checked.
Result<ElfFile> parse_elf(std::span<const std::byte> file);

}  // namespace vmm
