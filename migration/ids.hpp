// Names of sessions, and the secret that proves that a connection belongs to one.
#pragma once

#include <sys/random.h>

#include <array>
#include <cstdint>
#include <string>

#include "vmm/base/check.hpp"

namespace migration {

using SessionId = std::array<std::uint8_t, 16>;  // a name: may be logged
using Uuid = std::array<std::uint8_t, 16>;       // of the guest, for its whole life
using Secret = std::array<std::uint8_t, 32>;     // never logged, kept in 0600 files only

template <std::size_t N>
std::array<std::uint8_t, N> random_bytes() {
    std::array<std::uint8_t, N> bytes;
    static_assert(N <= 256, "getrandom(2) is not interrupted up to 256 bytes");
    VERIFY(::getrandom(bytes.data(), N, 0) == static_cast<ssize_t>(N));
    return bytes;
}

template <std::size_t N>
std::string to_hex(const std::array<std::uint8_t, N>& bytes) {
    static constexpr char digits[] = "0123456789abcdef";
    std::string text;
    for (const std::uint8_t byte : bytes) {
        text += digits[byte >> 4];
        text += digits[byte & 15];
    }
    return text;
}

// Takes as long whatever the contents, so that an attacker learns nothing from the time of a refusal.
inline bool equal_secrets(const Secret& a, const Secret& b) {
    std::uint8_t difference = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        difference = static_cast<std::uint8_t>(difference | (a[i] ^ b[i]));
    }
    return difference == 0;
}

}  // namespace migration
