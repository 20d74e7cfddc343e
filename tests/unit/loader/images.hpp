// Images built by hand, field by field, so that a test can spoil each.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/bytes.hpp"
#include "vmm/guest/memory.hpp"
#include "vmm/machine/boot_image.hpp"

namespace tests {

inline std::vector<vmm::RegionConfig> ram(std::uint64_t mib) {
    return vmm::pc_memory_map(mib << 20);
}

template <std::unsigned_integral T>
void patch(vmm::Bytes& bytes, std::size_t at, T value) {
    vmm::store_le(bytes.data() + at, value);
}

// Where things lie in pvh_image().
struct PvhAt {
    static constexpr std::size_t kHeaders = 64;
    static constexpr std::size_t kLoad = kHeaders;         // program header 0, PT_LOAD
    static constexpr std::size_t kNote = kHeaders + 56;    // program header 1, PT_NOTE
    static constexpr std::size_t kNotes = kHeaders + 112;  // a note of another owner, then ours
    static constexpr std::size_t kXenNote = kNotes + 20;
    static constexpr std::size_t kCode = kXenNote + 24;
    static constexpr std::uint64_t kAddress = 0x100000;
    static constexpr std::size_t kCodeBytes = 16;
    static constexpr std::uint64_t kMemoryBytes = 0x3000;
};

inline void put_note(vmm::ByteWriter& out, std::string_view name, std::uint32_t type, vmm::Bytes value) {
    out.put(static_cast<std::uint32_t>(name.size()));
    out.put(static_cast<std::uint32_t>(value.size()));
    out.put(type);
    vmm::Bytes text{std::as_bytes(std::span{name}).begin(), std::as_bytes(std::span{name}).end()};
    text.resize((text.size() + 3) / 4 * 4);
    value.resize((value.size() + 3) / 4 * 4);
    out.put(text);
    out.put(value);
}

inline void put_ident(vmm::ByteWriter& out, std::uint8_t file_class) {
    out.put(std::uint32_t{0x464c457f});
    out.put(file_class);
    out.put(std::uint8_t{1});   // little-endian
    out.put(std::uint16_t{1});  // version, ABI
    out.put(std::uint64_t{0});
}

// ELF64 with one segment at 1 MiB and a PVH note.
inline vmm::Bytes pvh_image() {
    vmm::Bytes image;
    vmm::ByteWriter out{image};
    put_ident(out, 2);
    out.put(std::uint16_t{2});   // ET_EXEC
    out.put(std::uint16_t{62});  // EM_X86_64
    out.put(std::uint32_t{1});
    out.put(std::uint64_t{PvhAt::kAddress});
    out.put(std::uint64_t{PvhAt::kHeaders});
    out.put(std::uint64_t{0});
    out.put(std::uint32_t{0});
    out.put(std::uint16_t{64});
    out.put(std::uint16_t{56});
    out.put(std::uint16_t{2});
    out.put(std::uint16_t{0});
    out.put(std::uint32_t{0});
    const auto program = [&](std::uint32_t type, std::uint64_t offset, std::uint64_t address,
                             std::uint64_t size, std::uint64_t memory) {
        out.put(type);
        out.put(std::uint32_t{7});
        out.put(offset);
        out.put(address);  // virtual
        out.put(address);
        out.put(size);
        out.put(memory);
        out.put(std::uint64_t{4});
    };
    program(1, PvhAt::kCode, PvhAt::kAddress, PvhAt::kCodeBytes, PvhAt::kMemoryBytes);
    program(4, PvhAt::kNotes, 0, PvhAt::kCode - PvhAt::kNotes, 0);
    put_note(out, std::string_view{"GNU\0", 4}, 18, vmm::Bytes(4));
    vmm::Bytes entry(8);
    patch(entry, 0, std::uint64_t{PvhAt::kAddress + 4});
    put_note(out, std::string_view{"Xen\0", 4}, 18, entry);
    for (std::size_t i = 0; i < PvhAt::kCodeBytes; ++i) {
        out.put(static_cast<std::uint8_t>(0xc0 + i));
    }
    return image;
}

// ELF32 with one segment, virtual 0xc0100000, physical 1 MiB, whose data starts with a multiboot header.
struct MultibootAt {
    static constexpr std::size_t kMachine = 18;
    static constexpr std::size_t kEntry = 24;
    static constexpr std::size_t kLoad = 52;
    static constexpr std::size_t kHeader = 84;
    static constexpr std::uint32_t kAddress = 0x100000;
    static constexpr std::uint32_t kVirtual = 0xc0100000;
};

inline void put_multiboot(vmm::ByteWriter& out, std::uint32_t flags) {
    constexpr std::uint32_t kMagic = 0x1badb002;
    out.put(kMagic);
    out.put(flags);
    out.put(std::uint32_t{0} - kMagic - flags);
}

inline vmm::Bytes multiboot_elf(std::uint32_t flags = 3) {
    vmm::Bytes image;
    vmm::ByteWriter out{image};
    put_ident(out, 1);
    out.put(std::uint16_t{2});
    out.put(std::uint16_t{3});  // EM_386
    out.put(std::uint32_t{1});
    out.put(std::uint32_t{MultibootAt::kVirtual + 12});
    out.put(std::uint32_t{MultibootAt::kLoad});
    out.put(std::uint32_t{0});
    out.put(std::uint32_t{0});
    out.put(std::uint16_t{52});
    out.put(std::uint16_t{32});
    out.put(std::uint16_t{1});
    out.put(std::uint16_t{0});
    out.put(std::uint32_t{0});
    out.put(std::uint32_t{1});  // PT_LOAD
    out.put(std::uint32_t{MultibootAt::kHeader});
    out.put(std::uint32_t{MultibootAt::kVirtual});
    out.put(std::uint32_t{MultibootAt::kAddress});
    out.put(std::uint32_t{16});
    out.put(std::uint32_t{0x1000});
    out.put(std::uint32_t{7});
    out.put(std::uint32_t{4});
    put_multiboot(out, flags);
    out.put(std::uint32_t{0xf4f4f4f4});
    return image;
}

// No ELF: 16 bytes before a multiboot header with address fields, loaded from those 16 bytes on at 2 MiB.
struct AddressesAt {
    static constexpr std::size_t kHeader = 32;
    static constexpr std::uint32_t kLoad = 0x200000;
};

inline vmm::Bytes multiboot_addresses() {
    vmm::Bytes image(AddressesAt::kHeader);
    vmm::ByteWriter out{image};
    put_multiboot(out, 0x10003);
    out.put(std::uint32_t{AddressesAt::kLoad + 16});     // header_addr
    out.put(std::uint32_t{AddressesAt::kLoad});          // load_addr
    out.put(std::uint32_t{AddressesAt::kLoad + 64});     // load_end_addr
    out.put(std::uint32_t{AddressesAt::kLoad + 0x800});  // bss_end_addr
    out.put(std::uint32_t{AddressesAt::kLoad + 48});     // entry_addr
    image.resize(100, std::byte{0xf4});
    return image;
}

// A bzImage: the boot sector, one sector of setup, the kernel, and a signature behind it.
struct LinuxAt {
    static constexpr std::size_t kSetupSectors = 0x1f1;
    static constexpr std::size_t kSystemSize = 0x1f4;
    static constexpr std::size_t kHeaderLength = 0x201;
    static constexpr std::size_t kVersion = 0x206;
    static constexpr std::size_t kLoadFlags = 0x211;
    static constexpr std::size_t kInitrdAddressMax = 0x22c;
    static constexpr std::size_t kAlignment = 0x230;
    static constexpr std::size_t kRelocatable = 0x234;
    static constexpr std::size_t kExtendedLoadFlags = 0x236;
    static constexpr std::size_t kCommandLineSize = 0x238;
    static constexpr std::size_t kPreferredAddress = 0x258;
    static constexpr std::size_t kInitSize = 0x260;
    static constexpr std::size_t kHeaderEnd = 0x26c;
    static constexpr std::size_t kKernel = 1024;
    static constexpr std::size_t kKernelBytes = 0x400;
    static constexpr std::uint64_t kAddress = 0x1000000;
};

inline vmm::Bytes linux_image() {
    vmm::Bytes image(LinuxAt::kKernel);
    image.resize(LinuxAt::kKernel + LinuxAt::kKernelBytes, std::byte{0x90});
    image.resize(image.size() + 40, std::byte{0x5a});
    patch(image, LinuxAt::kSetupSectors, std::uint8_t{1});
    patch(image, LinuxAt::kSystemSize, std::uint32_t{LinuxAt::kKernelBytes / 16});
    patch(image, 0x200, std::uint8_t{0xeb});
    patch(image, LinuxAt::kHeaderLength, std::uint8_t{LinuxAt::kHeaderEnd - 0x202});
    patch(image, 0x202, std::uint32_t{0x53726448});
    patch(image, LinuxAt::kVersion, std::uint16_t{0x20f});
    patch(image, LinuxAt::kLoadFlags, std::uint8_t{1});
    patch(image, LinuxAt::kInitrdAddressMax, std::uint32_t{0x7fffffff});
    patch(image, LinuxAt::kAlignment, std::uint32_t{0x200000});
    patch(image, LinuxAt::kRelocatable, std::uint8_t{1});
    patch(image, LinuxAt::kExtendedLoadFlags, std::uint16_t{0x7f});
    patch(image, LinuxAt::kCommandLineSize, std::uint32_t{2047});
    patch(image, LinuxAt::kPreferredAddress, std::uint64_t{LinuxAt::kAddress});
    patch(image, LinuxAt::kInitSize, std::uint32_t{0x10000});
    return image;
}

// Everything that an accepted image promises to whoever places it.
inline bool is_sound(const vmm::BootImage& image, vmm::GuestMemory& memory) {
    if (image.segments.size() > vmm::BootImage::kMaxSegments || !vmm::place(image, memory)) {
        return false;
    }
    for (std::size_t i = 0; i < image.segments.size(); ++i) {
        const vmm::BootSegment& a = image.segments[i];
        const std::uint64_t a_end = a.gpa + a.data.size() + a.zero_bytes;
        const bool is_firmware = a.gpa >= 0xe0000 && a_end <= 0x100000;
        if (a_end > 0x9fc00 && a.gpa < 0x100000 && !is_firmware) {
            return false;
        }
        for (std::size_t j = 0; j < i; ++j) {
            const vmm::BootSegment& b = image.segments[j];
            if (a_end > b.gpa && b.gpa + b.data.size() + b.zero_bytes > a.gpa) {
                return false;
            }
        }
    }
    return true;
}

}  // namespace tests
