// Guest addresses and pages as types of their own, so that neither is taken for the other or for a host
// pointer.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

namespace vmm {

inline constexpr std::size_t kPageShift = 12;
inline constexpr std::size_t kPageSize = std::size_t{1} << kPageShift;

// Guest physical address, in bytes.
struct Gpa {
    std::uint64_t value = 0;

    friend auto operator<=>(const Gpa&, const Gpa&) = default;
    friend Gpa operator+(Gpa gpa, std::uint64_t bytes) { return {gpa.value + bytes}; }
};

// Guest pages [first, first + count), by guest frame number (guest physical address / 4096).
struct PageRange {
    std::uint64_t first = 0;
    std::uint64_t count = 0;

    std::uint64_t end() const { return first + count; }
    friend bool operator==(const PageRange&, const PageRange&) = default;
};

}  // namespace vmm
