#include "migration/message_stream.hpp"

#include <numeric>
#include <vector>

namespace migration {

using vmm::Code;
using vmm::fail;
using vmm::Result;

namespace {

constexpr std::size_t kBodyStep = std::size_t{1} << 18;

}  // namespace

Result<void> MessageStream::send(const Message& message, const Deadline& deadline) {
    return send(message, {}, deadline);
}

Result<void> MessageStream::send(const Message& message, std::span<const iovec> payload,
                                 const Deadline& deadline) {
    const std::size_t payload_bytes =
        std::accumulate(payload.begin(), payload.end(), std::size_t{0},
                        [](std::size_t n, const iovec& v) { return n + v.iov_len; });
    const vmm::Bytes frame = encode_frame(message, payload_bytes);
    std::vector<iovec> parts{part_of(frame)};
    parts.insert(parts.end(), payload.begin(), payload.end());
    // Counted before the attempt: what was tried may have been delivered.
    bytes_sent_.fetch_add(frame.size() + payload_bytes, std::memory_order_relaxed);
    const std::lock_guard lock{sending_};
    auto sent = transport_->send(parts, deadline);
    broken_ = broken_ || !sent;
    return sent;
}

Result<void> MessageStream::take(std::span<const iovec> parts, const Deadline& deadline) {
    auto received = transport_->receive(parts, deadline);
    broken_ = broken_ || !received;
    return received;
}

Result<Incoming> MessageStream::receive(std::size_t max_bytes, const Deadline& deadline) {
    std::array<std::byte, kFrameHeaderBytes> raw;
    const iovec magic = part_of(std::span{raw}.first(kMagicBytes));
    TRY(take({&magic, 1}, deadline));
    TRY(check_magic(std::span{raw}.first<kMagicBytes>()).context(peer()));
    // Inside a frame a silent peer is a dead one, whatever the wait for the frame itself was allowed to take.
    Deadline inside = deadline;
    inside.progress = std::min(inside.progress, Deadline{}.progress);
    const iovec rest = part_of(std::span{raw}.subspan(kMagicBytes));
    TRY(take({&rest, 1}, inside));
    const FrameHeader header = TRY(decode_header(raw, max_bytes));
    // Memory follows the bytes that have come, not the length that was announced.
    vmm::Bytes body;
    while (body.size() < header.body_bytes) {
        const std::size_t begin = body.size();
        body.resize(std::min<std::size_t>(header.body_bytes, begin + kBodyStep));
        const iovec part = part_of(std::span{body}.subspan(begin));
        TRY(take({&part, 1}, inside));
    }
    return Incoming{TRY(decode_body(header, body)), header.payload_bytes};
}

Result<void> MessageStream::receive_payload(std::span<const iovec> parts, const Deadline& deadline) {
    return take(parts, deadline);
}

vmm::Failure MessageStream::unexpected(const Message& message, std::string_view wanted) {
    if (const auto* failed = std::get_if<Failed>(&message)) {
        return fail(Code::refused, "{}", failed->text);
    }
    if (const auto* cancel = std::get_if<Cancel>(&message)) {
        return fail(Code::cancelled, "{}", cancel->text);
    }
    return fail(Code::protocol, "the peer sent {} where {} was due", message_name(message), wanted);
}

}  // namespace migration
