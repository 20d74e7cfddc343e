#include "tools/vmm/frame_reader.hpp"

#include <sys/socket.h>

namespace tools {

using migration::kFrameHeaderBytes;
using vmm::Code;
using vmm::Result;

Result<bool> FrameReader::fill(int socket, std::size_t wanted) {
    while (have_ < wanted) {
        const ssize_t got = ::recv(socket, bytes_.data() + have_, wanted - have_, MSG_DONTWAIT);
        if (got > 0) {
            have_ += static_cast<std::size_t>(got);
        } else if (got == 0) {
            return vmm::fail(Code::closed, "the peer closed the connection");
        } else if (errno == EAGAIN) {
            return false;
        } else if (errno != EINTR) {
            return vmm::fail_errno(Code::io, "receive");
        }
    }
    return true;
}

Result<std::optional<migration::Message>> FrameReader::advance(int socket) {
    if (!header_) {
        if (!TRY(fill(socket, kFrameHeaderBytes))) {
            return std::optional<migration::Message>{};
        }
        const std::span<const std::byte, kFrameHeaderBytes> raw{bytes_.data(), kFrameHeaderBytes};
        header_ = TRY(migration::decode_header(raw, kMaxFrame - kFrameHeaderBytes));
        if (header_->payload_bytes != 0) {
            return vmm::fail(Code::protocol, "a payload is out of place");
        }
    }
    if (!TRY(fill(socket, kFrameHeaderBytes + header_->body_bytes))) {
        return std::optional<migration::Message>{};
    }
    const std::span<const std::byte> body{bytes_.data() + kFrameHeaderBytes, header_->body_bytes};
    migration::Message message = TRY(migration::decode_body(*header_, body));
    header_.reset();
    have_ = 0;
    return std::optional{std::move(message)};
}

}  // namespace tools
