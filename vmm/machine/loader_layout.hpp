// Where in guest memory an image and its boot information go, and the memory map that the guest is told.
// Pure.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "vmm/machine/boot_image.hpp"

namespace vmm {

// PC convention: RAM below 1 MiB ends here (639 KiB; an extended BIOS data area would follow), and up to 1
// MiB lie adapters and firmware.
inline constexpr std::uint64_t kLowMemoryEnd = 0x9fc00;
inline constexpr std::uint64_t kHighMemoryStart = 0x100000;
// From here to 1 MiB: where a PC has its BIOS, and where a guest looks for tables (ACPI 6.4, 5.2.5.1).
inline constexpr std::uint64_t kFirmwareStart = 0xe0000;
// The end of what 32-bit addresses reach.
inline constexpr std::uint64_t k4GiB = std::uint64_t{1} << 32;

struct MapEntry {
    enum class Type : std::uint32_t { ram = 1, reserved = 2 };  // as in E820 and all boot protocols
    std::uint64_t start;
    std::uint64_t size;
    Type type;
};

class BootLayout {
  public:
    explicit BootLayout(std::span<const RegionConfig> memory);

    const std::vector<MapEntry>& map() const { return map_; }

    // Adds a segment to `image`; `what` names it in errors. Fails unless all of it is RAM that no other
    // segment takes.
    Result<void> add(BootImage& image, std::uint64_t gpa, Bytes data, std::uint64_t size,
                     const std::string& what);
    Result<void> add(BootImage& image, std::uint64_t gpa, std::span<const std::byte> data, std::uint64_t size,
                     const std::string& what);
    // The same at `gpa` from kFirmwareStart on, in memory that the machine has and the map reserves.
    Result<void> add_firmware(BootImage& image, std::uint64_t gpa, Bytes data, const std::string& what);

    // The highest `size` bytes of RAM below `end` that no segment takes, on a page boundary. Fails when there
    // are none.
    Result<std::uint64_t> find_below(std::uint64_t end, std::uint64_t size, const std::string& what) const;
    Result<std::uint64_t> find_low(std::uint64_t size, const std::string& what) const {
        return find_below(kLowMemoryEnd, size, what);
    }
    // Whether a segment covers `gpa`.
    bool covers(std::uint64_t gpa) const;

  private:
    struct Claim {
        std::uint64_t start;
        std::uint64_t size;
        std::string what;
    };
    const Claim* overlapping(std::uint64_t start, std::uint64_t size) const;
    bool is_ram(std::uint64_t start, std::uint64_t size) const;
    Result<void> claim(BootImage& image, std::uint64_t gpa, Bytes data, std::uint64_t size,
                       const std::string& what);

    std::vector<MapEntry> map_;
    std::uint64_t firmware_end_ = 0;
    std::vector<Claim> claims_;
};

}  // namespace vmm
