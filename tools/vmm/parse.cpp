#include "tools/vmm/parse.hpp"

#include <algorithm>
#include <charconv>
#include <optional>

#include "vmm/guest/address.hpp"

namespace tools {

using vmm::Code;
using vmm::fail;
using vmm::Result;

namespace {

constexpr std::size_t kMaxGuestName = 64;

struct Number {
    std::uint64_t value = 0;
    std::string_view unit;
};

std::optional<Number> split_number(std::string_view text) {
    Number number;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number.value);
    if (error != std::errc{}) {
        return std::nullopt;
    }
    number.unit = text.substr(static_cast<std::size_t>(end - text.data()));
    return number;
}

// The factor of "", "K", "M", "G" or "T".
std::optional<std::uint64_t> factor_of(std::string_view prefix, std::uint64_t base) {
    constexpr std::string_view prefixes = "KMGT";
    if (prefix.empty()) {
        return 1;
    }
    const std::size_t power = prefix.size() == 1 ? prefixes.find(prefix[0]) : std::string_view::npos;
    if (power == std::string_view::npos) {
        return std::nullopt;
    }
    std::uint64_t factor = 1;
    for (std::size_t i = 0; i <= power; ++i) {
        factor *= base;
    }
    return factor;
}

std::optional<std::uint64_t> product(std::uint64_t a, std::uint64_t b) {
    std::uint64_t result = 0;
    return __builtin_mul_overflow(a, b, &result) ? std::nullopt : std::optional{result};
}

bool is_name_character(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
    const auto number = split_number(text);
    const auto factor = number ? factor_of(number->unit, 1024) : std::nullopt;
    const auto bytes = factor ? product(number->value, *factor) : std::nullopt;
    if (!bytes || *bytes == 0) {
        return fail(Code::invalid, "\"{}\" is not a size; give a number with K, M, G or T, as in 512M", text);
    }
    return *bytes;
}

Result<std::uint64_t> parse_memory(std::string_view text) {
    constexpr std::uint64_t kLeast = std::uint64_t{1} << 20;
    // A slot of KVM has less than 2^31 pages.
    constexpr std::uint64_t kMost = std::uint64_t{8} << 40;
    const std::uint64_t bytes = TRY(parse_size(text));
    if (bytes < kLeast) {
        return fail(Code::invalid,
                    "\"{}\" is {} bytes, less than a guest can use; give 1M or more, as in 512M", text,
                    bytes);
    }
    if (bytes % vmm::kPageSize != 0) {
        return fail(Code::invalid, "\"{}\" is not a multiple of {} bytes; give it with K, M or G, as in 512M",
                    text, vmm::kPageSize);
    }
    if (bytes > kMost) {
        return fail(Code::invalid, "\"{}\" is more than the {}T that a guest can have; give less", text,
                    kMost >> 40);
    }
    return bytes;
}

Result<vmm::Duration> parse_duration(std::string_view text) {
    constexpr std::uint64_t kNanosecondsInYear = std::uint64_t{365} * 24 * 3600 * 1'000'000'000;
    const auto number = split_number(text);
    std::uint64_t factor = 0;
    if (number && number->unit == "ms") {
        factor = 1'000'000;
    } else if (number && number->unit == "s") {
        factor = 1'000'000'000;
    } else if (number && number->unit == "m") {
        factor = 60'000'000'000;
    }
    const auto nanoseconds = number ? product(number->value, factor) : std::nullopt;
    if (!nanoseconds || *nanoseconds == 0 || *nanoseconds > kNanosecondsInYear) {
        return fail(Code::invalid, "\"{}\" is not a duration; give a number with ms, s or m, as in 300ms",
                    text);
    }
    return vmm::Duration{static_cast<std::int64_t>(*nanoseconds)};
}

Result<std::uint64_t> parse_bandwidth(std::string_view text) {
    constexpr std::string_view bit = "bit";
    const auto number = split_number(text);
    std::optional<std::uint64_t> bytes;
    if (number && number->unit.ends_with(bit)) {
        const auto factor = factor_of(number->unit.substr(0, number->unit.size() - bit.size()), 1000);
        const auto bits = factor ? product(number->value, *factor) : std::nullopt;
        bytes = bits ? std::optional{*bits / 8} : std::nullopt;
    } else if (number) {
        const auto factor = factor_of(number->unit, 1024);
        bytes = factor ? product(number->value, *factor) : std::nullopt;
    }
    if (!bytes || *bytes == 0) {
        return fail(Code::invalid,
                    "\"{}\" is not a bandwidth; give bytes/s as in 100M, or bits/s as in 10Gbit", text);
    }
    return *bytes;
}

Result<std::uint64_t> parse_count(std::string_view text, std::uint64_t low, std::uint64_t high) {
    const auto number = split_number(text);
    if (!number || !number->unit.empty() || number->value < low || number->value > high) {
        return fail(Code::invalid, "\"{}\" is not a whole number from {} to {}", text, low, high);
    }
    return number->value;
}

Result<vmm::Backing> parse_backing(std::string_view text) {
    if (text == "thp") {
        return vmm::Backing::thp;
    }
    if (text == "small") {
        return vmm::Backing::small;
    }
    if (text == "hugetlb") {
        return vmm::Backing::hugetlb;
    }
    return fail(Code::invalid, "\"{}\" is not a backing of memory; give thp, small or hugetlb", text);
}

bool is_guest_name(std::string_view name) {
    return !name.empty() && name.size() <= kMaxGuestName && name[0] != '.' && name[0] != '-' &&
           std::all_of(name.begin(), name.end(), is_name_character);
}

Result<std::string> parse_guest_name(std::string_view text) {
    if (!is_guest_name(text)) {
        return fail(Code::invalid,
                    "\"{}\" is not a name; give 1 to {} of A-Z a-z 0-9 . _ - that do not begin with . or -",
                    text, kMaxGuestName);
    }
    return std::string{text};
}

std::string guest_name_from(std::string_view text) {
    std::string name;
    for (const char c : text.substr(0, kMaxGuestName)) {
        name += is_name_character(c) ? c : '-';
    }
    name.erase(0, name.find_first_not_of(".-"));
    return name.empty() ? "guest" : name;
}

}  // namespace tools
