#include "vmm/machine/linux_header.hpp"

#include <algorithm>
#include <bit>

#include "vmm/base/bytes.hpp"

namespace vmm {

namespace {

// Offsets in the file.
constexpr std::size_t kSetupSectors = 0x1f1;
constexpr std::size_t kSystemSize = 0x1f4;  // of the kernel, in units of 16 bytes
constexpr std::size_t kJumpOffset = 0x201;  // the header ends that far behind the next byte
constexpr std::size_t kMagicAt = 0x202;
constexpr std::size_t kVersion = 0x206;
constexpr std::size_t kLoadFlags = 0x211;
constexpr std::size_t kInitrdAddressMax = 0x22c;
constexpr std::size_t kAlignment = 0x230;
constexpr std::size_t kRelocatable = 0x234;
constexpr std::size_t kExtendedLoadFlags = 0x236;
constexpr std::size_t kCommandLineSize = 0x238;
constexpr std::size_t kPreferredAddress = 0x258;
constexpr std::size_t kInitSize = 0x260;
constexpr std::size_t kLeastHeaderEnd = kInitSize + 4;
constexpr std::size_t kMostHeaderEnd = 0x290;  // what the zero page has room for

constexpr std::uint32_t kLinuxMagic = 0x53726448;  // "HdrS"
constexpr std::uint16_t kLeastVersion = 0x20c;
constexpr std::uint8_t kLoadedHigh = 1U << 0;
constexpr std::uint16_t kKernel64 = 1U << 0;  // XLF_KERNEL_64
constexpr std::size_t kSectorBytes = 512;
constexpr std::uint8_t kDefaultSetupSectors = 4;  // what 0 stands for
constexpr std::uint64_t kLowestLoadAddress = 0x100000;
constexpr std::uint64_t kAddressLimit = std::uint64_t{1} << 32;

template <std::unsigned_integral T>
T at(std::span<const std::byte> file, std::size_t offset) {
    return load_le<T>(file.subspan(offset, sizeof(T)).data());
}

// "init_size" of boot.rst: where the kernel runs when it is loaded as low as it allows.
Result<std::uint64_t> load_address(std::span<const std::byte> file) {
    const auto preferred = at<std::uint64_t>(file, kPreferredAddress);
    const std::uint64_t alignment = at<std::uint32_t>(file, kAlignment);
    std::uint64_t address = std::max(preferred, kLowestLoadAddress);
    if (preferred < kAddressLimit && at<std::uint8_t>(file, kRelocatable) != 0) {
        if (!std::has_single_bit(alignment)) {
            return fail(Code::invalid, "Linux header: kernel_alignment {:#x} is not a power of two",
                        alignment);
        }
        address = (address + alignment - 1) & ~(alignment - 1);
    }
    if (address >= kAddressLimit) {
        return fail(Code::unsupported, "Linux header: pref_address {:#x} is not below 4 GiB", preferred);
    }
    return address;
}

}  // namespace

bool is_linux(std::span<const std::byte> file) {
    return file.size() >= kMagicAt + sizeof kLinuxMagic && at<std::uint32_t>(file, kMagicAt) == kLinuxMagic;
}

Result<LinuxHeader> parse_linux_header(std::span<const std::byte> file) {
    if (!is_linux(file) || file.size() < kLeastHeaderEnd) {
        return fail(Code::invalid, "Linux header: the file ends inside it; the image is truncated");
    }
    const auto version = at<std::uint16_t>(file, kVersion);
    // Before 2.12 there are no xloadflags to ask.
    if (version < kLeastVersion || (at<std::uint16_t>(file, kExtendedLoadFlags) & kKernel64) == 0 ||
        (at<std::uint8_t>(file, kLoadFlags) & kLoadedHigh) == 0) {
        return fail(Code::unsupported,
                    "Linux header: boot protocol {}.{:02} without a 64-bit entry; give a bzImage of a 64-bit "
                    "kernel, 3.8 or newer",
                    version >> 8, version & 0xff);
    }
    const std::size_t header_end = kJumpOffset + 1 + at<std::uint8_t>(file, kJumpOffset);
    if (header_end < kLeastHeaderEnd || header_end > kMostHeaderEnd || header_end > file.size()) {
        return fail(Code::invalid, "Linux header: it ends at {:#x}, not from {:#x} to {:#x}; it is damaged",
                    header_end, kLeastHeaderEnd, kMostHeaderEnd);
    }
    const auto sectors = at<std::uint8_t>(file, kSetupSectors);
    const std::size_t setup_bytes =
        (std::size_t{sectors == 0 ? kDefaultSetupSectors : sectors} + 1) * kSectorBytes;
    // What follows the kernel is a signature of its file.
    const std::uint64_t kernel_bytes = std::uint64_t{at<std::uint32_t>(file, kSystemSize)} * 16;
    if (setup_bytes > file.size() || kernel_bytes > file.size() - setup_bytes) {
        return fail(
            Code::invalid,
            "Linux header: a kernel of {} bytes behind {} of setup is not in the file of {}; the image "
            "is truncated",
            kernel_bytes, setup_bytes, file.size());
    }
    LinuxHeader header;
    header.header = file.subspan(kLinuxHeaderAt, header_end - kLinuxHeaderAt);
    header.kernel = file.subspan(setup_bytes, kernel_bytes);
    header.load_address = TRY(load_address(file));
    header.init_size = std::max<std::uint64_t>(at<std::uint32_t>(file, kInitSize), kernel_bytes);
    header.initrd_end = std::uint64_t{at<std::uint32_t>(file, kInitrdAddressMax)} + 1;
    header.command_line_size = at<std::uint32_t>(file, kCommandLineSize);
    return header;
}

}  // namespace vmm
