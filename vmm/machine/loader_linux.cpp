// Linux bzImage by the 64-bit boot protocol (Linux documentation, arch/x86/boot.rst and zero-page.rst).
#include <algorithm>

#include "vmm/machine/linux_header.hpp"
#include "vmm/machine/loader_formats.hpp"

namespace vmm {

namespace {

constexpr std::uint64_t kEntryOffset = 0x200;

// The zero page, struct boot_params.
constexpr std::size_t kRsdpPointer = 0x70;
constexpr std::size_t kE820Count = 0x1e8;
constexpr std::size_t kTypeOfLoader = 0x210;
constexpr std::size_t kRamdiskImage = 0x218;
constexpr std::size_t kRamdiskSize = 0x21c;
constexpr std::size_t kCommandLinePointer = 0x228;
constexpr std::size_t kE820Table = 0x2d0;
constexpr std::size_t kE820EntryBytes = 20;
constexpr std::uint8_t kUndefinedLoader = 0xff;  // without a number assigned to it

// While our page tables are still in use, the kernel's decompressor clears two pages for a trampoline: below
// the end of low memory, which it takes to be 0x20000 at least (BIOS_START_MIN of
// arch/x86/boot/compressed/pgtable_64.c). All that it is given lies below them.
constexpr std::uint64_t kBootDataEnd = 0x1e000;

constexpr std::uint64_t kPresentWritable = 0x3;
constexpr std::uint64_t kLargePage = 0x80;
constexpr std::uint64_t kLargePageBytes = std::uint64_t{2} << 20;
constexpr std::uint64_t kEntriesPerTable = 512;
constexpr std::uint64_t kDirectories = k4GiB / (kLargePageBytes * kEntriesPerTable);

constexpr std::uint64_t kFlatCode64 = 0x00af'9b00'0000'ffff;  // execute, read; 64-bit
constexpr std::uint64_t kFlatData = 0x00cf'9300'0000'ffff;    // read, write

// Maps the first 4 GiB to themselves: PML4, one page directory pointer table, and its page directories.
Bytes identity_tables(std::uint64_t base) {
    Bytes tables((2 + kDirectories) * kPageSize);
    const auto put = [&](std::uint64_t table, std::uint64_t index, std::uint64_t entry) {
        store_le(tables.data() + table * kPageSize + index * sizeof entry, entry);
    };
    put(0, 0, (base + kPageSize) | kPresentWritable);
    for (std::uint64_t directory = 0; directory < kDirectories; ++directory) {
        put(1, directory, (base + (2 + directory) * kPageSize) | kPresentWritable);
    }
    for (std::uint64_t page = 0; page < kDirectories * kEntriesPerTable; ++page) {
        put(2 + page / kEntriesPerTable, page % kEntriesPerTable,
            page * kLargePageBytes | kPresentWritable | kLargePage);
    }
    return tables;
}

Bytes descriptor_table() {
    Bytes table(kLongGdtBytes);
    store_le(table.data() + kLongCodeSelector, kFlatCode64);
    store_le(table.data() + kLongDataSelector, kFlatData);
    return table;
}

// All addresses are below 4 GiB, and the map has few entries.
Bytes zero_page(const LinuxHeader& header, const std::vector<MapEntry>& map, std::uint64_t command_line,
                const Module& initrd) {
    Bytes page(kPageSize);
    const auto put = [&](std::size_t at, auto value) { store_le(page.data() + at, value); };
    std::copy(header.header.begin(), header.header.end(), page.begin() + kLinuxHeaderAt);
    put(kRsdpPointer, kRsdpAddress);
    put(kE820Count, static_cast<std::uint8_t>(map.size()));
    put(kTypeOfLoader, kUndefinedLoader);
    put(kRamdiskImage, static_cast<std::uint32_t>(initrd.start));
    put(kRamdiskSize, static_cast<std::uint32_t>(initrd.size));
    put(kCommandLinePointer, static_cast<std::uint32_t>(command_line));
    std::size_t at = kE820Table;
    for (const MapEntry& entry : map) {
        put(at, entry.start);
        put(at + 8, entry.size);
        put(at + 16, static_cast<std::uint32_t>(entry.type));
        at += kE820EntryBytes;
    }
    return page;
}

// Puts what `make` makes for an address at that address, in low memory; the address.
template <typename Make>
Result<std::uint64_t> add_boot_data(BootPlan& plan, std::uint64_t size, const std::string& what, Make make) {
    const std::uint64_t base = TRY(plan.layout.find_below(kBootDataEnd, size, what));
    TRY(plan.layout.add(plan.image, base, make(base), size, what));
    return base;
}

}  // namespace

Result<void> load_linux(std::span<const std::byte> file, BootPlan& plan) {
    const LinuxHeader header = TRY(parse_linux_header(file));
    const std::string_view line = plan.command_line;
    if (line.size() > header.command_line_size) {
        return fail(Code::invalid, "command line: {} bytes, and this kernel takes {}; shorten --append",
                    line.size(), header.command_line_size);
    }
    if (header.init_size <= kEntryOffset) {
        return fail(Code::invalid, "Linux kernel: {} bytes do not reach its entry at {:#x}; it is truncated",
                    header.init_size, kEntryOffset);
    }
    BootImage& image = plan.image;
    TRY(plan.layout.add(image, header.load_address, header.kernel, header.init_size, "Linux kernel"));
    const Module initrd = TRY(add_initrd(plan, header.initrd_end));
    const std::uint64_t line_at = TRY(add_boot_data(plan, line.size() + 1, "command line", [&](auto) {
        Bytes text(line.size() + 1);
        std::copy_n(std::as_bytes(std::span{line}).begin(), line.size(), text.begin());
        return text;
    }));
    image.mode = EntryMode::long64;
    image.entry = header.load_address + kEntryOffset;
    image.rsi = TRY(add_boot_data(plan, kPageSize, "Linux zero page", [&](auto) {
        return zero_page(header, plan.layout.map(), line_at, initrd);
    }));
    image.gdt = TRY(add_boot_data(plan, kLongGdtBytes, "GDT", [](auto) { return descriptor_table(); }));
    image.cr3 = TRY(add_boot_data(plan, (2 + kDirectories) * kPageSize, "page tables", identity_tables));
    return {};
}

}  // namespace vmm
