// PVH direct boot (xen/docs/misc/pvh.pandoc; structures from xen/include/public/arch-x86/hvm/start_info.h).
#include "vmm/machine/loader_formats.hpp"

namespace vmm {

namespace {

constexpr std::uint32_t kStartMagic = 0x336ec578;
constexpr std::uint32_t kStartVersion = 1;  // the first with a memory map
constexpr std::size_t kStartBytes = 56;
constexpr std::size_t kPvhMapEntryBytes = 24;
constexpr std::size_t kPvhModuleBytes = 32;

// hvm_start_info, the module list, the memory map and the command line, as they lie at `base`.
Bytes start_info(std::uint64_t base, const std::vector<MapEntry>& map, std::string_view command_line,
                 const Module& initrd) {
    const bool has_module = initrd.size != 0;
    const std::uint64_t list_at = base + kStartBytes;
    const std::uint64_t map_at = list_at + (has_module ? kPvhModuleBytes : 0);
    Bytes bytes;
    ByteWriter out{bytes};
    out.put(kStartMagic);
    out.put(kStartVersion);
    out.put(std::uint32_t{0});                         // flags
    out.put(std::uint32_t{has_module ? 1U : 0U});      // nr_modules
    out.put(has_module ? list_at : std::uint64_t{0});  // modlist_paddr
    out.put(map_at + map.size() * kPvhMapEntryBytes);  // cmdline_paddr
    out.put(kRsdpAddress);                             // rsdp_paddr
    out.put(map_at);                                   // memmap_paddr
    out.put(static_cast<std::uint32_t>(map.size()));   // memmap_entries
    out.put(std::uint32_t{0});                         // reserved
    if (has_module) {
        out.put(initrd.start);
        out.put(initrd.size);
        out.put(std::uint64_t{0});  // cmdline_paddr
        out.put(std::uint64_t{0});  // reserved
    }
    for (const MapEntry& entry : map) {
        out.put(entry.start);
        out.put(entry.size);
        out.put(static_cast<std::uint32_t>(entry.type));
        out.put(std::uint32_t{0});  // reserved
    }
    out.put(std::as_bytes(std::span{command_line}));
    out.put(std::uint8_t{0});
    return bytes;
}

}  // namespace

Result<void> load_pvh(const ElfFile& elf, BootPlan& plan) {
    BootLayout& layout = plan.layout;
    BootImage& image = plan.image;
    for (std::size_t i = 0; i < elf.segments.size(); ++i) {
        const ElfSegment& segment = elf.segments[i];
        TRY(layout.add(image, segment.address, segment.data, segment.memory_size,
                       fmt::format("PVH segment {}", i)));
    }
    image.mode = EntryMode::protected32;
    image.entry = *elf.pvh_entry;
    if (image.entry > UINT32_MAX || !layout.covers(image.entry)) {
        return fail(Code::invalid, "PVH entry note: {:#x} is in no segment; rebuild the image", image.entry);
    }
    // Linux takes 32 bits of the address (arch/x86/platform/pvh/enlighten.c).
    const Module initrd = TRY(add_initrd(plan, k4GiB));
    const std::string what = "PVH start information";
    const std::uint64_t base =
        TRY(layout.find_low(start_info(0, layout.map(), plan.command_line, initrd).size(), what));
    Bytes info = start_info(base, layout.map(), plan.command_line, initrd);
    const std::uint64_t size = info.size();
    TRY(layout.add(image, base, std::move(info), size, what));
    image.rbx = base;
    return {};
}

}  // namespace vmm
