// One function for each boot protocol; loader.cpp chooses. All of them take the file as load_image() got it
// and a command line that fits.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "vmm/machine/boot_image.hpp"
#include "vmm/machine/elf.hpp"

namespace vmm {

// PVH: the file has an entry note.
Result<BootImage> load_pvh(const ElfFile& elf, std::string_view command_line,
                           std::span<const RegionConfig> memory);

// Where in the file the multiboot 1 header is; nothing when there is none.
std::optional<std::size_t> find_multiboot(std::span<const std::byte> file);
Result<BootImage> load_multiboot(std::span<const std::byte> file, std::size_t header_at,
                                 std::string_view command_line, std::span<const RegionConfig> memory);

// 16-bit code without a header.
Result<BootImage> load_flat(std::span<const std::byte> file, std::string_view command_line,
                            std::span<const RegionConfig> memory);

}  // namespace vmm
