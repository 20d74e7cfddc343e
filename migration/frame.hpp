// Frames: a message between its header and, for two types, a payload. PROTOCOL.md section 2 has the bytes.
#pragma once

#include <array>
#include <optional>

#include "migration/message.hpp"
#include "vmm/base/result.hpp"

namespace migration {

inline constexpr std::size_t kFrameHeaderBytes = 32;
inline constexpr std::size_t kMagicBytes = 4;  // its first

struct FrameHeader {
    MessageType type{};
    std::uint32_t body_bytes = 0;
    std::uint32_t payload_bytes = 0;
    std::uint64_t body_checksum = 0;
};

// Header and body of a message that `payload_bytes` of payload follow.
vmm::Bytes encode_frame(const Message& message, std::size_t payload_bytes = 0);

// Code::foreign: this is not our protocol at all. To be asked as soon as the bytes are there: who speaks
// another one may send no more than these.
vmm::Result<void> check_magic(std::span<const std::byte, kMagicBytes> raw);

// Checks magic, type and both lengths against the limits of the type and `max_bytes` for body and payload
// together.
vmm::Result<FrameHeader> decode_header(std::span<const std::byte, kFrameHeaderBytes> raw,
                                       std::size_t max_bytes);

// Checks the checksum, then decodes the body.
vmm::Result<Message> decode_body(const FrameHeader& header, std::span<const std::byte> body);

// "Commit", for texts and tests.
std::string_view message_name(MessageType type);
std::string_view message_name(const Message& message);

}  // namespace migration
