// TlsPreamble: the first 32 bytes of a connection that will be encrypted, in the clear, so that whoever
// accepts it knows which process is to prove who it is. It holds no secret, and nothing is granted on its
// word.
#pragma once

#include <array>
#include <optional>
#include <span>

#include "migration/message.hpp"

namespace migration {

struct TlsPreamble {
    static constexpr std::size_t kBytes = 32;  // as many as a frame's header

    Purpose purpose{};
    SessionId session{};

    std::array<std::byte, kBytes> encode() const;
    // Nothing: it begins as something else does.
    static vmm::Result<std::optional<TlsPreamble>> decode(std::span<const std::byte, kBytes> raw);
    bool operator==(const TlsPreamble&) const = default;
};

}  // namespace migration
