// Recorded files under tests/golden, compared with what the code makes today.
#pragma once

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "vmm/base/bytes.hpp"

namespace tests {

// A file of the source tree; the test fails when it cannot be read.
inline std::string source_file(const std::string& path) {
    std::ifstream in{std::filesystem::path{GODWIT_SOURCE_DIR} / path, std::ios::binary};
    INFO("reading " << path);
    REQUIRE(in.good());
    return {std::istreambuf_iterator<char>{in}, {}};
}

inline vmm::Bytes to_bytes(std::string_view text) {
    const auto bytes = std::as_bytes(std::span{text});
    return {bytes.begin(), bytes.end()};
}

inline vmm::Bytes golden_bytes(const std::string& name) {
    return to_bytes(source_file("tests/golden/" + name));
}

// Fails when `actual` is not what tests/golden/NAME holds, and leaves it in the build folder for a look: to
// record a new version, copy it from there. A recorded stream that was ever released is never replaced.
inline void check_golden(const std::string& name, std::string_view actual) {
    const auto root = std::filesystem::path{GODWIT_SOURCE_DIR} / "tests/golden";
    std::ifstream in{root / name, std::ios::binary};
    const std::string expected{std::istreambuf_iterator<char>{in}, {}};
    if (in.is_open() && expected == actual) {
        SUCCEED();
        return;
    }
    const auto copy = std::filesystem::path{GODWIT_BINARY_DIR} / "golden" / name;
    std::filesystem::create_directories(copy.parent_path());
    std::ofstream{copy, std::ios::binary}.write(actual.data(), static_cast<std::streamsize>(actual.size()));
    FAIL_CHECK("tests/golden/" << name << (in.is_open() ? " differs from " : " does not exist; see ")
                               << copy);
}

inline void check_golden(const std::string& name, std::span<const std::byte> actual) {
    check_golden(name, std::string_view{reinterpret_cast<const char*>(actual.data()), actual.size()});
}

}  // namespace tests
