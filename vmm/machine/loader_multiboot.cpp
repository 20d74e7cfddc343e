// Multiboot Specification 0.6.96: section 3.1 the header, 3.2 the machine state, 3.3 the information.
#include <algorithm>
#include <array>

#include "vmm/machine/loader_formats.hpp"

namespace vmm {

namespace {

constexpr std::uint32_t kHeaderMagic = 0x1badb002;
constexpr std::uint32_t kLoaderMagic = 0x2badb002;
constexpr std::size_t kSearchBytes = 8192;
constexpr std::size_t kShortHeader = 12;
constexpr std::size_t kAddressHeader = 32;

constexpr std::uint32_t kRequired = 0xffff;
constexpr std::uint32_t kAlignModules = 1U << 0;  // met: modules always are
constexpr std::uint32_t kMemoryInfo = 1U << 1;    // met: it is always there
constexpr std::uint32_t kAddresses = 1U << 16;

constexpr std::size_t kInfoBytes = 116;
constexpr std::uint32_t kInfoMemory = 1U << 0;
constexpr std::uint32_t kInfoCommandLine = 1U << 2;
constexpr std::uint32_t kInfoModules = 1U << 3;
constexpr std::uint32_t kInfoMap = 1U << 6;
constexpr std::uint32_t kInfoLoaderName = 1U << 9;
constexpr std::uint32_t kMultibootMapEntryBytes = 24;
constexpr std::uint32_t kMultibootModuleBytes = 16;
constexpr std::string_view kLoaderName = "Godwit";

std::uint32_t word(std::span<const std::byte> file, std::size_t at) {
    return load_le<std::uint32_t>(file.subspan(at, sizeof(std::uint32_t)).data());
}

std::uint32_t in_kib(std::uint64_t bytes) {
    return static_cast<std::uint32_t>(bytes / 1024);
}

// The information structure, the module list, the memory map, the command line and our name, as they lie at
// `base`, which is below 1 MiB: every address fits 32 bits.
Bytes information(std::uint64_t base, const std::vector<MapEntry>& map, std::string_view command_line,
                  const Module& initrd) {
    const bool has_module = initrd.size != 0;
    const auto modules_at = static_cast<std::uint32_t>(base + kInfoBytes);
    const std::uint32_t map_at = modules_at + (has_module ? kMultibootModuleBytes : 0);
    const auto map_bytes = static_cast<std::uint32_t>(map.size() * kMultibootMapEntryBytes);
    const std::uint32_t line_at = map_at + map_bytes;
    const auto name_at = static_cast<std::uint32_t>(line_at + command_line.size() + 1);
    Bytes bytes(kInfoBytes);
    const auto put = [&](std::size_t at, std::uint32_t value) { store_le(bytes.data() + at, value); };
    put(0, kInfoMemory | kInfoCommandLine | (has_module ? kInfoModules : 0) | kInfoMap | kInfoLoaderName);
    for (const MapEntry& entry : map) {
        if (entry.type == MapEntry::Type::ram && entry.start == 0) {
            put(4, in_kib(entry.size));  // mem_lower
        } else if (entry.type == MapEntry::Type::ram && entry.start == kHighMemoryStart) {
            put(8, in_kib(entry.size));  // mem_upper: up to the first hole
        }
    }
    put(16, line_at);
    put(20, has_module ? 1 : 0);
    put(24, modules_at);
    put(44, map_bytes);
    put(48, map_at);
    put(64, name_at);
    ByteWriter out{bytes};
    if (has_module) {
        out.put(static_cast<std::uint32_t>(initrd.start));
        out.put(static_cast<std::uint32_t>(initrd.start + initrd.size));
        out.put(std::uint32_t{0});  // string: none
        out.put(std::uint32_t{0});  // reserved
    }
    for (const MapEntry& entry : map) {
        out.put(kMultibootMapEntryBytes - std::uint32_t{4});  // the size field does not count itself
        out.put(entry.start);
        out.put(entry.size);
        out.put(static_cast<std::uint32_t>(entry.type));
    }
    out.put(std::as_bytes(std::span{command_line}));
    out.put(std::uint8_t{0});
    out.put(std::as_bytes(std::span{kLoaderName}));
    out.put(std::uint8_t{0});
    return bytes;
}

// Section 3.1.3: the address fields, which say where a file that is not ELF goes.
Result<void> add_by_addresses(std::span<const std::byte> file, std::size_t header_at, BootLayout& layout,
                              BootImage& image) {
    if (file.size() - header_at < kAddressHeader) {
        return fail(Code::invalid,
                    "multiboot header: its address fields are cut off; the image is truncated");
    }
    const std::uint64_t header_address = word(file, header_at + 12);
    const std::uint64_t load = word(file, header_at + 16);
    const std::uint64_t load_end = word(file, header_at + 20);
    const std::uint64_t bss_end = word(file, header_at + 24);
    if (load > header_address || header_address - load > header_at) {
        return fail(Code::invalid,
                    "multiboot header: load_addr {:#x} lies before the start of the file; rebuild it", load);
    }
    const std::span<const std::byte> rest = file.subspan(header_at - (header_address - load));
    const std::uint64_t size = load_end == 0 ? rest.size() : load_end - load;
    if (load_end != 0 && (load_end < load || size > rest.size())) {
        return fail(Code::invalid,
                    "multiboot header: load_end_addr {:#x} is outside the file; it is truncated", load_end);
    }
    const std::uint64_t end = bss_end == 0 ? load + size : bss_end;
    if (end < load + size) {
        return fail(Code::invalid,
                    "multiboot header: bss_end_addr {:#x} lies before the end of the data; rebuild it",
                    bss_end);
    }
    image.entry = word(file, header_at + 28);
    return layout.add(image, load, rest.first(size), end - load, "multiboot image");
}

Result<void> add_elf(std::span<const std::byte> file, BootLayout& layout, BootImage& image) {
    const ElfFile elf = TRY(parse_elf(file));
    if (elf.is_64) {
        return fail(Code::unsupported,
                    "multiboot image: a 64-bit ELF file, which multiboot 1 does not know; make it 32-bit or "
                    "add a PVH "
                    "entry note");
    }
    // The entry of an ELF file is a virtual address; the machine starts without paging.
    image.entry = elf.entry;
    for (std::size_t i = 0; i < elf.segments.size(); ++i) {
        const ElfSegment& segment = elf.segments[i];
        TRY(layout.add(image, segment.address, segment.data, segment.memory_size,
                       fmt::format("multiboot segment {}", i)));
        if (elf.entry >= segment.virtual_address &&
            elf.entry - segment.virtual_address < segment.memory_size) {
            image.entry = segment.address + (elf.entry - segment.virtual_address);
        }
    }
    return {};
}

}  // namespace

std::optional<std::size_t> find_multiboot(std::span<const std::byte> file) {
    const std::size_t end = std::min(file.size(), kSearchBytes);
    for (std::size_t at = 0; at + kShortHeader <= end; at += 4) {
        if (word(file, at) == kHeaderMagic && word(file, at) + word(file, at + 4) + word(file, at + 8) == 0) {
            return at;
        }
    }
    return std::nullopt;
}

Result<void> load_multiboot(std::span<const std::byte> file, std::size_t header_at, BootPlan& plan) {
    const std::uint32_t flags = word(file, header_at + 4);
    if (const std::uint32_t unknown = flags & kRequired & ~(kAlignModules | kMemoryInfo); unknown != 0) {
        return fail(
            Code::unsupported,
            "multiboot header: it requires features {:#x} (bit 2 is a video mode) that this machine lacks; "
            "clear these flags",
            unknown);
    }
    BootLayout& layout = plan.layout;
    BootImage& image = plan.image;
    if ((flags & kAddresses) != 0) {
        TRY(add_by_addresses(file, header_at, layout, image));
    } else if (is_elf(file)) {
        TRY(add_elf(file, layout, image));
    } else {
        return fail(Code::invalid,
                    "multiboot header: neither ELF nor address fields say where the image goes");
    }
    if (!layout.covers(image.entry)) {
        return fail(Code::invalid, "multiboot image: entry {:#x} is in no segment; rebuild the image",
                    image.entry);
    }
    image.mode = EntryMode::protected32;
    image.rax = kLoaderMagic;
    const Module initrd = TRY(add_initrd(plan, k4GiB));
    const std::string what = "multiboot information";
    const std::uint64_t base =
        TRY(layout.find_low(information(0, layout.map(), plan.command_line, initrd).size(), what));
    Bytes info = information(base, layout.map(), plan.command_line, initrd);
    const std::uint64_t size = info.size();
    TRY(layout.add(image, base, std::move(info), size, what));
    image.rbx = base;
    return {};
}

}  // namespace vmm
