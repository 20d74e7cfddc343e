#include "tools/vmm/frame_reader.hpp"

#include <sys/socket.h>

namespace tools {

using migration::kFrameHeaderBytes;
using vmm::Code;
using vmm::Result;

Result<std::size_t> FrameReader::receive(int socket, std::span<std::byte> to) {
    for (;;) {
        const ssize_t got = ::recv(socket, to.data(), to.size(), MSG_DONTWAIT);
        if (got > 0) {
            return static_cast<std::size_t>(got);
        }
        if (got == 0) {
            return vmm::fail(Code::closed, "the peer closed the connection");
        }
        if (errno == EAGAIN) {
            return std::size_t{0};
        }
        if (errno != EINTR) {
            return vmm::fail_errno(Code::io, "receive");
        }
    }
}

Result<bool> FrameReader::fill(const Receive& receive, std::size_t wanted) {
    while (have_ < wanted) {
        const std::size_t got = TRY(receive(std::span{bytes_}.subspan(have_, wanted - have_)));
        if (got == 0) {
            return false;
        }
        have_ += got;
    }
    return true;
}

Result<std::optional<FrameReader::Read>> FrameReader::advance(const Receive& receive) {
    static_assert(migration::TlsPreamble::kBytes == kFrameHeaderBytes);
    if (!header_) {
        if (!TRY(fill(receive, kFrameHeaderBytes))) {
            return std::optional<Read>{};
        }
        const std::span<const std::byte, kFrameHeaderBytes> raw{bytes_.data(), kFrameHeaderBytes};
        if (const auto preamble = TRY(migration::TlsPreamble::decode(raw))) {
            have_ = 0;
            return std::optional<Read>{*preamble};
        }
        header_ = TRY(migration::decode_header(raw, kMaxFrame - kFrameHeaderBytes));
        if (header_->payload_bytes != 0) {
            return vmm::fail(Code::protocol, "a payload is out of place");
        }
    }
    if (!TRY(fill(receive, kFrameHeaderBytes + header_->body_bytes))) {
        return std::optional<Read>{};
    }
    const std::span<const std::byte> body{bytes_.data() + kFrameHeaderBytes, header_->body_bytes};
    migration::Message message = TRY(migration::decode_body(*header_, body));
    header_.reset();
    have_ = 0;
    return std::optional<Read>{std::move(message)};
}

}  // namespace tools
