// The first words of whoever connects to the listener, in pieces. Oracle: what is taken is a frame, or the
// preamble of TLS, that encodes to the same bytes, not one byte beyond it was read, and never more than a
// frame may have.
#include "tools/vmm/frame_reader.hpp"

#include <sys/socket.h>

#include "tests/fuzz/input.hpp"
#include "vmm/base/check.hpp"

namespace {

// What the reader has left.
std::size_t waiting(int socket) {
    std::array<std::byte, 65536> bytes;
    const ssize_t got = ::recv(socket, bytes.data(), bytes.size(), MSG_PEEK | MSG_DONTWAIT);
    return got < 0 ? 0 : static_cast<std::size_t>(got);
}

vmm::Bytes bytes_of(const tools::FrameReader::Read& read) {
    if (const auto* preamble = std::get_if<migration::TlsPreamble>(&read)) {
        const auto bytes = preamble->encode();
        return {bytes.begin(), bytes.end()};
    }
    return migration::encode_frame(std::get<migration::Message>(read));
}

}  // namespace

// A byte for how it is cut, then a stream.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    constexpr std::size_t kMost = 4 * tools::FrameReader::kMaxFrame;
    fuzz::Input input{data, std::min(size, kMost)};
    const std::size_t piece = std::size_t{input.take<std::uint8_t>()} * 16 + 1;
    vmm::Bytes stream{input.rest().begin(), input.rest().end()};
    fuzz::for_each_frame(stream, [](const fuzz::Frame&) {});

    std::array<int, 2> ends{};
    VERIFY(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
    const vmm::UniqueFd ours{ends[0]};
    vmm::UniqueFd theirs{ends[1]};
    const tools::FrameReader::Receive from_socket = [&ours](std::span<std::byte> to) {
        return tools::FrameReader::receive(ours.get(), to);
    };
    tools::FrameReader reader;
    std::size_t said = 0;
    std::size_t begin = 0;  // of the frame that is being read
    for (fuzz::Input left{stream}; !left.empty();) {
        const auto next = left.take_bytes(piece);
        VERIFY(::send(theirs.get(), next.data(), next.size(), 0) == static_cast<ssize_t>(next.size()));
        said += next.size();
        for (bool whole = true; whole;) {
            const auto message = reader.advance(from_socket);
            const std::size_t taken = said - waiting(ours.get());
            VERIFY(taken - begin <= tools::FrameReader::kMaxFrame);
            if (!message) {
                return 0;
            }
            whole = message->has_value();
            if (whole) {
                const vmm::Bytes frame = bytes_of(**message);
                const auto read = std::span<const std::byte>{stream}.subspan(begin, taken - begin);
                VERIFY(std::equal(frame.begin(), frame.end(), read.begin(), read.end()));
                begin = taken;
            }
        }
    }
    theirs.reset();
    VERIFY(!reader.advance(from_socket).has_value());
    return 0;
}
