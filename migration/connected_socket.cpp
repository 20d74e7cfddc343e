#include "migration/connected_socket.hpp"

#include <fcntl.h>
#include <linux/tcp.h>  // not <netinet/tcp.h>, whose tcp_info ends before the delivery rate
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migration/remaining.hpp"

namespace migration {

using vmm::Code;
using vmm::fail;
using vmm::fail_errno;
using vmm::Result;
using vmm::TimePoint;
using vmm::UniqueFd;

namespace {

template <typename T>
Result<void> set_option(int socket, int level, int name, T value, const char* text) {
    if (::setsockopt(socket, level, name, &value, sizeof value) != 0) {
        return fail_errno(Code::io, "set {}", text);
    }
    return {};
}

// What the kernel knows of the connection; zero where it is too old to say.
tcp_info info_of(int socket) {
    tcp_info info{};
    socklen_t length = sizeof info;
    (void)::getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &length);
    return info;
}

}  // namespace

bool is_loopback(const sockaddr& address) {
    if (address.sa_family == AF_INET) {
        const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
        return ntohl(v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    }
    if (address.sa_family == AF_INET6) {
        const in6_addr& v6 = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
        return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == IN_LOOPBACKNET);
    }
    return false;
}

Result<ConnectedSocket> ConnectedSocket::adopt(UniqueFd socket, std::string peer) {
    const int fd = socket.get();
    TRY(set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY"));
    TRY(set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1, "SO_KEEPALIVE"));
    TRY(set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 5, "TCP_KEEPIDLE"));
    TRY(set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 2, "TCP_KEEPINTVL"));
    TRY(set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3, "TCP_KEEPCNT"));
    TRY(set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 10'000u, "TCP_USER_TIMEOUT"));
    if (::fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
        return fail_errno(Code::io, "make a socket non-blocking");
    }
    return ConnectedSocket{std::move(socket), std::move(peer)};
}

Result<void> ConnectedSocket::check_time(const Deadline& deadline) const {
    if (deadline.at && vmm::real_clock().now() >= *deadline.at) {
        return fail(Code::timeout, "{} was too slow", peer_);
    }
    return {};
}

Result<void> ConnectedSocket::wait_for(Step step, const Deadline& deadline, TimePoint& last_progress) const {
    if (step == Step::moved) {
        last_progress = vmm::real_clock().now();
        return {};
    }
    return wait(step == Step::writable ? POLLOUT : POLLIN, deadline, last_progress);
}

Result<void> ConnectedSocket::wait(short events, const Deadline& deadline, TimePoint& last_progress) const {
    // Room for more comes in large steps: on a slow link what the peer's host has acknowledged counts as
    // progress.
    std::uint64_t acknowledged = events == POLLOUT ? info_of(socket_.get()).tcpi_bytes_acked : UINT64_MAX;
    for (;;) {
        const TimePoint at = vmm::real_clock().now();
        TimePoint until = deadline.at.value_or(TimePoint::max());
        if (deadline.progress != vmm::Duration::max()) {
            until = std::min(until, last_progress + deadline.progress);
        }
        if (at >= until && (!deadline.at || at < *deadline.at)) {
            const std::uint64_t by_now = info_of(socket_.get()).tcpi_bytes_acked;
            if (by_now > acknowledged) {
                acknowledged = by_now;
                last_progress = at;
                continue;
            }
        }
        if (at >= until) {
            return fail(Code::timeout, "{} did not answer in time", peer_);
        }
        timespec timeout{};
        if (until != TimePoint::max()) {
            const auto left = std::chrono::nanoseconds{until - at}.count();
            timeout = {left / 1'000'000'000, left % 1'000'000'000};
        }
        pollfd entry{socket_.get(), events, 0};
        const int ready = ::ppoll(&entry, 1, until == TimePoint::max() ? nullptr : &timeout, nullptr);
        if (ready > 0) {
            return {};
        }
        if (ready < 0 && errno != EINTR) {
            return fail_errno(Code::io, "wait for {}", peer_);
        }
    }
}

Result<void> ConnectedSocket::transfer(std::span<const iovec> parts, const Deadline& deadline,
                                       Direction direction) const {
    Remaining remaining{parts};
    if (remaining.done()) {
        return {};
    }
    return drive(deadline, [&]() -> Result<Step> {
        for (;;) {
            msghdr header = remaining.header();
            const ssize_t moved = direction == Direction::send ? ::sendmsg(fd(), &header, MSG_NOSIGNAL)
                                                               : ::recvmsg(fd(), &header, 0);
            if (moved > 0) {
                remaining.advance(static_cast<std::size_t>(moved));
                return remaining.done() ? Step::done : Step::moved;
            }
            if (moved == 0) {
                return fail(Code::closed, "{} closed the connection", peer_);
            }
            if (errno == EAGAIN || errno == EWOULDBLOCK) {
                return direction == Direction::send ? Step::writable : Step::readable;
            }
            if (errno != EINTR) {
                return vmm::Failure{broken(errno)};
            }
        }
    });
}

vmm::Error ConnectedSocket::broken(int error) const {
    const bool closed = error == EPIPE || error == ECONNRESET || error == ENOTCONN;
    const Code code = closed ? Code::closed : error == ETIMEDOUT ? Code::timeout : Code::io;
    return vmm::Error::from_errno(code, fmt::format("connection to {}", peer_), error);
}

void ConnectedSocket::shutdown() const {
    (void)::shutdown(fd(), SHUT_RDWR);
}

void ConnectedSocket::abort() const {
    // Dissolving the association (connect(2), AF_UNSPEC) purges the send queue and resets the connection.
    sockaddr nobody{};
    nobody.sa_family = AF_UNSPEC;
    if (::connect(fd(), &nobody, sizeof nobody) == 0) {
        return;
    }
    // The kernel refuses that where it encrypts itself. Closing with no time to linger does the same; the
    // number, which others may be about to use, goes to a socket that was never connected.
    shutdown();
    const linger at_once{1, 0};
    (void)::setsockopt(fd(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    const UniqueFd unconnected{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (unconnected) {
        (void)::dup3(unconnected.get(), fd(), O_CLOEXEC);
    }
}

double ConnectedSocket::delivery_rate() const {
    return static_cast<double>(info_of(fd()).tcpi_delivery_rate);
}

bool ConnectedSocket::leaves_host() const {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    auto* peer = reinterpret_cast<sockaddr*>(&address);
    return ::getpeername(fd(), peer, &length) == 0 &&
           (peer->sa_family == AF_INET || peer->sa_family == AF_INET6) && !is_loopback(*peer);
}

}  // namespace migration
