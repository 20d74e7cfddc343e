#include "tools/vmm/session_channel.hpp"

#include <sys/socket.h>

#include <array>
#include <cstring>

#include "vmm/state/decode.hpp"
#include "vmm/state/encode.hpp"

namespace tools {

using vmm::Code;
using vmm::Result;

namespace {

constexpr std::size_t kMaxMessage = 1024;

union DescriptorBuffer {
    cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
};

}  // namespace

Result<std::pair<SessionChannel, SessionChannel>> SessionChannel::create() {
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
        return vmm::fail_errno(Code::io, "socketpair");
    }
    return std::pair{SessionChannel{vmm::UniqueFd{ends[0]}}, SessionChannel{vmm::UniqueFd{ends[1]}}};
}

Result<void> SessionChannel::send(const ChannelMessage& message, int descriptor) const {
    const vmm::Bytes bytes = vmm::encode(message);
    iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    DescriptorBuffer buffer{};
    if (descriptor >= 0) {
        header.msg_control = buffer.bytes;
        header.msg_controllen = sizeof buffer.bytes;
        cmsghdr* control = CMSG_FIRSTHDR(&header);
        control->cmsg_level = SOL_SOCKET;
        control->cmsg_type = SCM_RIGHTS;
        control->cmsg_len = CMSG_LEN(sizeof descriptor);
        std::memcpy(CMSG_DATA(control), &descriptor, sizeof descriptor);
    }
    while (::sendmsg(socket_.get(), &header, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        if (errno != EINTR) {
            return vmm::fail_errno(Code::closed, "send to the other process of the session");
        }
    }
    return {};
}

Result<std::optional<SessionChannel::Received>> SessionChannel::receive(bool wait) const {
    std::array<std::byte, kMaxMessage> bytes;
    iovec part{bytes.data(), bytes.size()};
    DescriptorBuffer buffer{};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = buffer.bytes;
    header.msg_controllen = sizeof buffer.bytes;
    ssize_t got = 0;
    do {
        got = ::recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
    } while (got < 0 && errno == EINTR);
    if (got < 0 && errno == EAGAIN) {
        return std::optional<Received>{};
    }
    if (got <= 0) {
        return vmm::fail(Code::closed, "the other process of the session is gone");
    }
    Received received;
    const cmsghdr* control = CMSG_FIRSTHDR(&header);
    if (control != nullptr && control->cmsg_type == SCM_RIGHTS) {
        int descriptor = -1;
        std::memcpy(&descriptor, CMSG_DATA(control), sizeof descriptor);
        received.descriptor = vmm::UniqueFd{descriptor};
    }
    received.message = TRY(vmm::decode<ChannelMessage>(std::span{bytes}.first(static_cast<std::size_t>(got)),
                                                       ChannelMessage::id.current));
    return std::optional{std::move(received)};
}

void SessionChannel::shut() const {
    (void)::shutdown(socket_.get(), SHUT_RD);
}

}  // namespace tools
