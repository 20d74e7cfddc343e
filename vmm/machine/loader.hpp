// Loaders: the bytes of an image file in, a BootImage out. The file is hostile input; nothing here touches
// guest memory.
//
// Formats: PVH ELF (xen/docs/misc/pvh.pandoc), multiboot 1 (Multiboot Specification 0.6.96), and, when a file
// has the marks of neither, a flat 16-bit image started at 0:0x7c00 like a boot sector.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "vmm/machine/boot_image.hpp"

namespace vmm {

// Without the terminating zero.
inline constexpr std::size_t kMaxCommandLine = 4095;
inline constexpr std::size_t kMaxImageFile = std::size_t{512} << 20;

// The whole of a regular file of at most kMaxImageFile bytes.
Result<Bytes> read_image_file(const std::string& path);

// `memory` is the RAM of the machine that is to run the image, in ascending order.
Result<BootImage> load_image(std::span<const std::byte> file, std::string_view command_line,
                             std::span<const RegionConfig> memory);

}  // namespace vmm
