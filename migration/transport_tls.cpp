#include "migration/transport_tls.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "migration/frame.hpp"
#include "migration/remaining.hpp"
#include "migration/tls_preamble.hpp"

namespace migration {

using vmm::Code;
using vmm::Result;
using Direction = ConnectedSocket::Direction;
using SocketStep = ConnectedSocket::Step;
using Needs = TlsChannel::Needs;

namespace {

// A TLS record holds this much at most: pages are gathered into full ones.
constexpr std::size_t kRecord = 16 << 10;
// Encrypted at a time, so that it is still in the cache when the kernel copies it.
constexpr std::size_t kBatch = std::size_t{256} << 10;

SocketStep step_of(Needs needs) {
    return needs == Needs::writable ? SocketStep::writable : SocketStep::readable;
}

}  // namespace

Result<std::unique_ptr<TlsTransport>> TlsTransport::client(ConnectedSocket socket, const TlsContext& context,
                                                           const TlsPeer& identity) {
    auto channel =
        TRY(TlsChannel::create(context, TlsChannel::Role::client, socket.fd(), socket.peer(), identity));
    return std::unique_ptr<TlsTransport>{new TlsTransport{std::move(socket), std::move(channel)}};
}

Result<std::unique_ptr<TlsTransport>> TlsTransport::server(ConnectedSocket socket, const TlsContext& context,
                                                           const std::optional<TlsPeer>& identity) {
    auto channel =
        TRY(TlsChannel::create(context, TlsChannel::Role::server, socket.fd(), socket.peer(), identity));
    return std::unique_ptr<TlsTransport>{new TlsTransport{std::move(socket), std::move(channel)}};
}

std::unique_ptr<TlsTransport> TlsTransport::adopt(ConnectedSocket socket,
                                                  std::unique_ptr<TlsChannel> channel) {
    std::unique_ptr<TlsTransport> transport{new TlsTransport{std::move(socket), std::move(channel)}};
    transport->established();
    return transport;
}

void TlsTransport::established() {
    facts_ = channel_->facts();
    channel_->work_in_bulk();
}

// Whoever gives up still wants to say so, also to a peer that was turned away.
Result<void> TlsTransport::check_established() const {
    if (!facts_) {
        return vmm::fail(Code::closed, "{}: TLS is not set up", peer());
    }
    return {};
}

Result<void> TlsTransport::handshake(const Deadline& deadline) {
    const auto step = [&]() -> Result<SocketStep> {
        const Needs needs = TRY(channel_->handshake());
        return needs == Needs::nothing ? SocketStep::done : step_of(needs);
    };
    TRY(socket_.drive(deadline, step));
    established();
    return {};
}

Result<void> TlsTransport::introduce(const Hello& hello, const Deadline& deadline) {
    const auto preamble = TlsPreamble{hello.purpose, hello.session}.encode();
    const iovec part = part_of(preamble);
    const auto done = [&]() -> Result<void> {
        TRY(socket_.transfer({&part, 1}, deadline, Direction::send));
        TRY(channel_->begin());
        TRY(check_plain_answer(deadline));
        return handshake(deadline);
    }();
    if (!done && done.error().code() == Code::closed) {
        return vmm::fail(Code::closed,
                         "{} before TLS was set up; does `vmm receive` run there with --tls-dir?",
                         done.error().text());
    }
    return done;
}

Result<void> TlsTransport::check_plain_answer(const Deadline& deadline) const {
    std::array<std::byte, kFrameHeaderBytes> raw;
    ssize_t seen = 0;
    TRY(socket_.drive(deadline, [&]() -> Result<SocketStep> {
        seen = ::recv(socket_.fd(), raw.data(), raw.size(), MSG_PEEK);
        if (seen < 0 && errno != EAGAIN && errno != EINTR) {
            return vmm::Failure{socket_.broken(errno)};
        }
        return seen < 0 ? SocketStep::readable : SocketStep::done;
    }));
    // As frames begin, and no TLS record does.
    if (seen == 0 || raw[0] != std::byte{'G'}) {
        return {};
    }
    const iovec head = part_of(raw);
    TRY(socket_.transfer({&head, 1}, deadline, Direction::receive));
    const FrameHeader header = TRY(decode_header(raw, HelloReply::max_body));
    vmm::Bytes body(header.body_bytes);
    const iovec rest = part_of(body);
    TRY(socket_.transfer({&rest, 1}, deadline, Direction::receive));
    const Message answer = TRY(decode_body(header, body));
    const auto* reply = std::get_if<HelloReply>(&answer);
    return vmm::fail(Code::refused, "{} does not speak TLS: {}", peer(),
                     reply != nullptr ? reply->text : "it answers in the clear");
}

Result<void> TlsTransport::send(std::span<const iovec> parts, const Deadline& deadline) {
    TRY(check_established());
    auto sent =
        facts_->kernel_sends ? socket_.transfer(parts, deadline, Direction::send) : encrypt(parts, deadline);
    if (!sent && sent.error().code() == Code::closed) {
        return vmm::Failure{last_alert(std::move(sent).error())};
    }
    return sent;
}

Result<void> TlsTransport::encrypt(std::span<const iovec> parts, const Deadline& deadline) {
    std::array<std::byte, kRecord> gathered;
    std::size_t have = 0;
    const auto seal = [&](std::span<const std::byte> bytes) -> Result<void> {
        bool full = false;
        {
            const std::lock_guard lock{mutex_};
            while (!bytes.empty()) {
                const TlsChannel::Moved moved = TRY(channel_->send(bytes));
                if (moved.bytes == 0) {  // what is encrypted goes to memory, which never waits
                    return vmm::fail(Code::closed, "{} broke TLS before", peer());
                }
                bytes = bytes.subspan(moved.bytes);
            }
            full = channel_->output().size() >= kBatch;
        }
        return full ? flush(deadline) : Result<void>{};
    };
    for (const iovec& part : parts) {
        std::span<const std::byte> left{static_cast<const std::byte*>(part.iov_base), part.iov_len};
        while (!left.empty()) {
            const std::size_t taken = std::min(left.size(), kRecord - have);
            if (taken == kRecord) {
                TRY(seal(left.first(taken)));
            } else {
                std::memcpy(gathered.data() + have, left.data(), taken);
                have += taken;
            }
            left = left.subspan(taken);
            if (have == kRecord) {
                TRY(seal(gathered));
                have = 0;
            }
        }
    }
    TRY(seal(std::span{gathered}.first(have)));
    return flush(deadline);
}

Result<void> TlsTransport::flush(const Deadline& deadline) {
    outgoing_.clear();
    {
        const std::lock_guard lock{mutex_};
        outgoing_.swap(channel_->output());
    }
    const iovec part = part_of(outgoing_);
    return socket_.transfer({&part, 1}, deadline, Direction::send);
}

vmm::Error TlsTransport::last_alert(vmm::Error error) {
    // What else is there to be read stays: the peer's last word may be behind it.
    const std::lock_guard lock{mutex_};
    const auto next = channel_->peek();
    return !next && next.error().code() == Code::refused ? next.error() : error;
}

Result<void> TlsTransport::receive(std::span<const iovec> parts, const Deadline& deadline) {
    TRY(check_established());
    Remaining remaining{parts};
    if (remaining.done()) {
        return {};
    }
    return socket_.drive(deadline, [&]() -> Result<SocketStep> {
        const iovec& part = remaining.front();
        TlsChannel::Moved moved;
        {
            const std::lock_guard lock{mutex_};
            moved = TRY(channel_->receive({static_cast<std::byte*>(part.iov_base), part.iov_len}));
        }
        if (moved.bytes == 0) {
            return step_of(moved.needs);
        }
        remaining.advance(moved.bytes);
        return remaining.done() ? SocketStep::done : SocketStep::moved;
    });
}

Result<std::unique_ptr<Transport>> TlsConnector::connect(const Deadline& deadline) {
    const TlsPeer identity = identity_ ? *identity_ : TRY(TlsPeer::parse(address_.host));
    ConnectedSocket socket = TRY(connect_to(address_, Reach::anywhere, deadline));
    return std::unique_ptr<Transport>{TRY(TlsTransport::client(std::move(socket), *context_, identity))};
}

}  // namespace migration
