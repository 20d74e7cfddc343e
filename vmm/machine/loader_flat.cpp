// A flat image is started as PC firmware starts a boot sector: at 0:0x7c00 in real mode.
#include "vmm/machine/loader_formats.hpp"
#include "vmm/machine/loader_layout.hpp"

namespace vmm {

namespace {

constexpr std::uint64_t kBase = 0x7c00;
constexpr std::size_t kMaxBytes = kLowMemoryEnd - kBase;
// Linux documentation, arch/x86/boot.rst: the header of a bzImage.
constexpr std::size_t kLinuxMagicAt = 0x202;
constexpr std::uint32_t kLinuxMagic = 0x53726448;  // "HdrS"

bool is_linux(std::span<const std::byte> file) {
    return file.size() >= kLinuxMagicAt + sizeof kLinuxMagic &&
           load_le<std::uint32_t>(file.data() + kLinuxMagicAt) == kLinuxMagic;
}

}  // namespace

Result<BootImage> load_flat(std::span<const std::byte> file, std::string_view command_line,
                            std::span<const RegionConfig> memory) {
    if (file.empty()) {
        return fail(Code::invalid, "image: the file is empty");
    }
    if (is_linux(file)) {
        return fail(Code::unsupported, "image: a Linux bzImage; give the uncompressed vmlinux instead");
    }
    if (file.size() > kMaxBytes) {
        return fail(
            Code::invalid,
            "image: neither PVH ELF nor multiboot, and {} bytes are more than the {} of a flat 16-bit image",
            file.size(), kMaxBytes);
    }
    if (!command_line.empty()) {
        return fail(Code::invalid, "image: a flat 16-bit image takes no command line; leave --append away");
    }
    BootLayout layout{memory};
    BootImage image;
    TRY(layout.add(image, kBase, file, file.size(), "flat image"));
    image.mode = EntryMode::real16;
    image.entry = kBase;
    return image;
}

}  // namespace vmm
