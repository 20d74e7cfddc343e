// One function for each boot protocol; loader.cpp chooses. All of them take the file as load_image() got it
// and a command line of at most kMaxCommandLine bytes without a zero among them.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "vmm/machine/elf.hpp"
#include "vmm/machine/loader_layout.hpp"

namespace vmm {

// Where the ACPI tables begin.
inline constexpr std::uint64_t kRsdpAddress = kFirmwareStart;

// An image in the making.
struct BootPlan {
    std::string_view command_line;
    Bytes initrd;  // empty: none
    BootLayout layout;
    BootImage image;
};

// Where the initrd is; of size 0: there is none.
struct Module {
    std::uint64_t start = 0;
    std::uint64_t size = 0;
};
// Takes the initrd out of the plan and puts it as high as it can be below `end`.
Result<Module> add_initrd(BootPlan& plan, std::uint64_t end);

// PVH: the file has an entry note.
Result<void> load_pvh(const ElfFile& elf, BootPlan& plan);

// The file has the mark of a setup header.
Result<void> load_linux(std::span<const std::byte> file, BootPlan& plan);

// Where in the file the multiboot 1 header is; nothing when there is none.
std::optional<std::size_t> find_multiboot(std::span<const std::byte> file);
Result<void> load_multiboot(std::span<const std::byte> file, std::size_t header_at, BootPlan& plan);

// 16-bit code without a header.
Result<void> load_flat(std::span<const std::byte> file, BootPlan& plan);

}  // namespace vmm
