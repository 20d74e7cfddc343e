// What the tests of every loader do: load, look at guest memory, and expect a refusal.
#pragma once

#include <catch2/catch.hpp>
#include <string>
#include <string_view>

#include "tests/unit/loader/images.hpp"
#include "vmm/machine/loader.hpp"

namespace tests {

inline vmm::Result<vmm::BootImage> load_image(std::span<const std::byte> file, std::string_view line,
                                              std::uint64_t mib, vmm::Bytes initrd = {}) {
    const auto memory = ram(mib);
    vmm::BootOptions options;
    options.command_line = line;
    options.initrd = std::move(initrd);
    options.memory = memory;
    options.platform.power.reset = 0x602;
    options.platform.power.reset_value = 1;
    return vmm::load_image(file, std::move(options));
}

inline vmm::BootImage loaded(const vmm::Bytes& file, std::string_view line = "", std::uint64_t mib = 64) {
    auto image = load_image(file, line, mib);
    INFO((image ? "" : image.error().text()));
    REQUIRE(image);
    return std::move(*image);
}

// The text of the refusal: one line that says `expected`.
inline void check_refused(const vmm::Bytes& file, std::string_view expected, std::string_view line = "",
                          std::uint64_t mib = 64) {
    const auto image = load_image(file, line, mib);
    INFO("expected: " << expected);
    REQUIRE_FALSE(image);
    INFO(image.error().text());
    CHECK(image.error().text().find(expected) != std::string::npos);
    CHECK(image.error().text().find('\n') == std::string::npos);
}

// A good image with `value` at `at`.
template <std::unsigned_integral T>
vmm::Bytes with(vmm::Bytes image, std::size_t at, T value) {
    patch(image, at, value);
    return image;
}

template <std::unsigned_integral T>
T at(const vmm::BootSegment& segment, std::uint64_t gpa) {
    REQUIRE(gpa >= segment.gpa);
    REQUIRE(gpa - segment.gpa + sizeof(T) <= segment.data.size());
    return vmm::load_le<T>(segment.data.data() + (gpa - segment.gpa));
}

inline std::string text_at(const vmm::BootSegment& segment, std::uint64_t gpa) {
    std::string text;
    for (;; ++gpa) {
        const auto c = static_cast<char>(at<std::uint8_t>(segment, gpa));
        if (c == 0) {
            return text;
        }
        text.push_back(c);
    }
}

inline void check_sound(const vmm::BootImage& image, std::uint64_t mib) {
    auto memory = vmm::GuestMemory::create(ram(mib), vmm::Backing::small);
    REQUIRE(memory);
    REQUIRE(is_sound(image, *memory));
}

}  // namespace tests
