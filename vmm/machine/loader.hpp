// Loaders: the bytes of an image file in, a BootImage out. The file is hostile input; nothing here touches
// guest memory.
//
// Formats: Linux bzImage (boot.rst, the 64-bit boot protocol), PVH ELF (xen/docs/misc/pvh.pandoc), which an
// uncompressed vmlinux is too, multiboot 1 (Multiboot Specification 0.6.96), and, when a file has the marks
// of none, a flat 16-bit image started at 0:0x7c00 like a boot sector.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "vmm/guest/platform.hpp"
#include "vmm/machine/boot_image.hpp"

namespace vmm {

// Without the terminating zero. A kernel may take less.
inline constexpr std::size_t kMaxCommandLine = 4095;
inline constexpr std::size_t kMaxImageFile = std::size_t{512} << 20;
inline constexpr std::size_t kMaxInitrdFile = std::size_t{384} << 20;
// What they become moves with the guest in one piece.
static_assert(kMaxImageFile + kMaxInitrdFile < BootSegment::kMaxBytes);

// The whole of a regular file of at most `limit` bytes; errors call it a `what`.
Result<Bytes> read_boot_file(const std::string& path, std::string_view what, std::size_t limit);

struct BootOptions {
    std::string_view command_line;
    Bytes initrd;                          // empty: none
    std::span<const RegionConfig> memory;  // RAM of the machine that is to run the image, in ascending order
    Platform platform;
};

Result<BootImage> load_image(std::span<const std::byte> file, BootOptions options);

}  // namespace vmm
