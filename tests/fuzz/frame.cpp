// Oracle: a frame that is accepted encodes to the same bytes again.
#include "migration/frame.hpp"

#include "tests/fuzz/input.hpp"
#include "vmm/base/check.hpp"

namespace {

void decode(std::span<const std::byte> bytes, std::size_t max_bytes) {
    using migration::kFrameHeaderBytes;
    if (bytes.size() < kFrameHeaderBytes) {
        return;
    }
    const auto header = migration::decode_header(bytes.first<kFrameHeaderBytes>(), max_bytes);
    if (!header || header->body_bytes > bytes.size() - kFrameHeaderBytes) {
        return;
    }
    VERIFY(std::size_t{header->body_bytes} + header->payload_bytes <= max_bytes);
    const auto frame = bytes.first(kFrameHeaderBytes + header->body_bytes);
    const auto message = migration::decode_body(*header, frame.subspan(kFrameHeaderBytes));
    if (message) {
        const vmm::Bytes again = migration::encode_frame(*message, header->payload_bytes);
        VERIFY(std::equal(again.begin(), again.end(), frame.begin(), frame.end()));
    }
}

}  // namespace

// Two bytes of limit, then frames.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input{data, size};
    const std::size_t max_bytes = std::size_t{input.take<std::uint16_t>()} << 8;
    decode(input.rest(), max_bytes);
    vmm::Bytes stream{input.rest().begin(), input.rest().end()};
    fuzz::for_each_frame(stream, [&](const fuzz::Frame& frame) {
        decode({frame.header.data(), frame.header.size() + frame.body.size()}, max_bytes);
    });
    return 0;
}
