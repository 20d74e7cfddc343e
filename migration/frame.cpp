#include "migration/frame.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "vmm/state/decode.hpp"
#include "vmm/state/encode.hpp"

namespace migration {

using vmm::Code;
using vmm::fail;
using vmm::Result;

namespace {

constexpr std::uint32_t kFrameMagic = 0x314d5747;  // "GWM1"
constexpr std::size_t kBodyChecksumOffset = 16;
constexpr std::size_t kHeaderChecksumOffset = 24;

// Indexed by MessageType - 1.
constexpr std::array<std::string_view, std::variant_size_v<Message>> kNames{
    "Hello",         "HelloReply",   "Manifest", "PreflightReply", "Prepare",
    "BootImagePart", "Prepared",     "Pages",    "RoundEnd",       "KeepAlive",
    "Finish",        "MachineState", "Ready",    "DigestMismatch", "Inventory",
    "Failed",        "Cancel",       "Commit",   "Running",        "Placed",
    "Acknowledge",   "QueryAnswer",  "Probe",    "Probed",         "RoundDone"};

std::uint64_t checksum(std::span<const std::byte> bytes) {
    return XXH3_64bits(bytes.data(), bytes.size());
}

// Calls f.operator()<T>() for the alternative T whose type is `type`; false when there is none.
template <typename F>
bool with_type(MessageType type, F&& f) {
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
        return ((std::variant_alternative_t<I, Message>::type == type &&
                 (f.template operator()<std::variant_alternative_t<I, Message>>(), true)) ||
                ...);
    }
    (std::make_index_sequence<std::variant_size_v<Message>>{});
}

}  // namespace

std::string_view message_name(MessageType type) {
    const auto index = static_cast<std::size_t>(type) - 1;
    return index < kNames.size() ? kNames[index] : "unknown message";
}

std::string_view message_name(const Message& message) {
    return std::visit([](const auto& m) { return message_name(std::decay_t<decltype(m)>::type); }, message);
}

vmm::Bytes encode_frame(const Message& message, std::size_t payload_bytes) {
    vmm::Bytes frame(kFrameHeaderBytes);
    const MessageType type = std::visit(
        [&](const auto& m) {
            using T = std::decay_t<decltype(m)>;
            vmm::Encoder encoder{frame};
            T::visit(m, encoder);
            VERIFY(frame.size() - kFrameHeaderBytes <= T::max_body);
            return T::type;
        },
        message);
    VERIFY(payload_bytes <= max_payload(type));
    const std::span<const std::byte> body = std::span{frame}.subspan(kFrameHeaderBytes);
    vmm::store_le(frame.data(), kFrameMagic);
    vmm::store_le(frame.data() + 4, static_cast<std::uint16_t>(type));
    vmm::store_le(frame.data() + 6, std::uint16_t{0});
    vmm::store_le(frame.data() + 8, static_cast<std::uint32_t>(body.size()));
    vmm::store_le(frame.data() + 12, static_cast<std::uint32_t>(payload_bytes));
    vmm::store_le(frame.data() + kBodyChecksumOffset, checksum(body));
    vmm::store_le(frame.data() + kHeaderChecksumOffset,
                  checksum(std::span{frame}.first(kHeaderChecksumOffset)));
    return frame;
}

Result<void> check_magic(std::span<const std::byte, kMagicBytes> raw) {
    if (vmm::load_le<std::uint32_t>(raw.data()) != kFrameMagic) {
        return fail(Code::foreign, "something else than the other side of a migration answers");
    }
    return {};
}

Result<FrameHeader> decode_header(std::span<const std::byte, kFrameHeaderBytes> raw, std::size_t max_bytes) {
    TRY(check_magic(raw.first<kMagicBytes>()));
    if (vmm::load_le<std::uint16_t>(raw.data() + 6) != 0) {
        return fail(Code::protocol, "a frame header is malformed");
    }
    if (vmm::load_le<std::uint64_t>(raw.data() + kHeaderChecksumOffset) !=
        checksum(raw.first(kHeaderChecksumOffset))) {
        return fail(Code::corrupt, "a frame header's checksum is wrong");
    }
    FrameHeader header;
    header.type = static_cast<MessageType>(vmm::load_le<std::uint16_t>(raw.data() + 4));
    header.body_bytes = vmm::load_le<std::uint32_t>(raw.data() + 8);
    header.payload_bytes = vmm::load_le<std::uint32_t>(raw.data() + 12);
    header.body_checksum = vmm::load_le<std::uint64_t>(raw.data() + kBodyChecksumOffset);
    std::size_t max_body = 0;
    if (!with_type(header.type, [&]<typename T>() { max_body = T::max_body; })) {
        return fail(Code::protocol, "unknown message type {}", static_cast<unsigned>(header.type));
    }
    const std::size_t total = std::size_t{header.body_bytes} + header.payload_bytes;
    if (header.body_bytes > max_body || header.payload_bytes > max_payload(header.type) ||
        total > max_bytes) {
        return fail(Code::limit, "{} of {} bytes is more than is accepted now", message_name(header.type),
                    total);
    }
    return header;
}

Result<Message> decode_body(const FrameHeader& header, std::span<const std::byte> body) {
    if (checksum(body) != header.body_checksum) {
        return fail(Code::corrupt, "{}: the frame's checksum is wrong", message_name(header.type));
    }
    std::optional<Result<Message>> message;
    with_type(header.type, [&]<typename T>() {
        Result<T> decoded = vmm::decode<T>(body, kProtocolVersion).context(message_name(header.type));
        if (decoded) {
            message.emplace(std::move(*decoded));
        } else {
            message.emplace(vmm::Failure{std::move(decoded).error()});
        }
    });
    VERIFY(message.has_value());  // decode_header knew the type
    return std::move(*message);
}

}  // namespace migration
