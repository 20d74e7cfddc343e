// The setup header of a Linux bzImage (Linux documentation, arch/x86/boot.rst, "The Real-Mode Kernel Header"
// and after). Pure; the file is hostile.
#pragma once

#include <cstdint>
#include <span>

#include "vmm/base/result.hpp"

namespace vmm {

// Where the header begins, in the file and in the zero page.
inline constexpr std::size_t kLinuxHeaderAt = 0x1f1;

struct LinuxHeader {
    std::span<const std::byte> header;    // from kLinuxHeaderAt on, as far as the kernel has one
    std::span<const std::byte> kernel;    // the protected-mode part, which is loaded
    std::uint64_t load_address = 0;       // where the kernel wants to be, and will run; guest physical
    std::uint64_t init_size = 0;          // bytes from there that it needs; not less than `kernel`
    std::uint64_t initrd_end = 0;         // an initrd must end at or below
    std::uint64_t command_line_size = 0;  // most bytes, without the terminating zero
};

// Whether the file claims to have such a header.
bool is_linux(std::span<const std::byte> file);

// Of a kernel with a 64-bit entry; others are refused. Numbers are bounded so that no sum of two overflows;
// whether the memory is RAM is not checked.
Result<LinuxHeader> parse_linux_header(std::span<const std::byte> file);

}  // namespace vmm
