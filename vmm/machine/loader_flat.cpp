// A flat image is started as PC firmware starts a boot sector: at 0:0x7c00 in real mode.
#include "vmm/machine/loader_formats.hpp"

namespace vmm {

namespace {

constexpr std::uint64_t kBase = 0x7c00;
constexpr std::size_t kMaxBytes = kLowMemoryEnd - kBase;

}  // namespace

Result<void> load_flat(std::span<const std::byte> file, BootPlan& plan) {
    if (file.empty()) {
        return fail(Code::invalid, "image: the file is empty");
    }
    if (file.size() > kMaxBytes) {
        return fail(Code::invalid,
                    "image: neither Linux nor PVH ELF nor multiboot, and {} bytes are more than the {} of a "
                    "flat 16-bit image",
                    file.size(), kMaxBytes);
    }
    if (!plan.command_line.empty()) {
        return fail(Code::invalid, "image: a flat 16-bit image takes no command line; leave --append away");
    }
    if (!plan.initrd.empty()) {
        return fail(Code::invalid, "image: a flat 16-bit image takes no initrd; leave --initrd away");
    }
    TRY(plan.layout.add(plan.image, kBase, file, file.size(), "flat image"));
    plan.image.mode = EntryMode::real16;
    plan.image.entry = kBase;
    return {};
}

}  // namespace vmm
