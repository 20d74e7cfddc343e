// Values of the command line: the text a person types in, a value in its unit out. Errors are one line and
// say what would be right.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "vmm/base/clock.hpp"
#include "vmm/base/mapping.hpp"
#include "vmm/base/result.hpp"

namespace tools {

// "512M": bytes; K, M, G and T are powers of 1024. Not 0.
vmm::Result<std::uint64_t> parse_size(std::string_view text);
// A size that a guest's memory can have.
vmm::Result<std::uint64_t> parse_memory(std::string_view text);

// "300ms", "10s", "5m". Not 0, at most a year.
vmm::Result<vmm::Duration> parse_duration(std::string_view text);

// Bytes a second: "100M" with powers of 1024, or, ending in "bit", bits with powers of 1000: "10Gbit". Not 0.
vmm::Result<std::uint64_t> parse_bandwidth(std::string_view text);

// A whole number from `low` to `high`.
vmm::Result<std::uint64_t> parse_count(std::string_view text, std::uint64_t low, std::uint64_t high);

vmm::Result<vmm::Backing> parse_backing(std::string_view text);

// Names of guests become file names: 1 to 64 of A-Z a-z 0-9 . _ -, not starting with a dot.
bool is_guest_name(std::string_view name);
vmm::Result<std::string> parse_guest_name(std::string_view text);

// A guest name made of what is usable in `text`; "guest" when nothing is.
std::string guest_name_from(std::string_view text);

}  // namespace tools
