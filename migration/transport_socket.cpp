#include "migration/transport_socket.hpp"

#include <fcntl.h>
#include <linux/tcp.h>  // not <netinet/tcp.h>, whose tcp_info ends before the delivery rate
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <climits>
#include <vector>

namespace migration {

using vmm::Code;
using vmm::fail;
using vmm::fail_errno;
using vmm::Result;
using vmm::TimePoint;
using vmm::UniqueFd;

namespace {

TimePoint now() {
    return vmm::real_clock().now();
}

struct FreeAddrinfo {
    void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};
using AddrinfoList = std::unique_ptr<addrinfo, FreeAddrinfo>;

Result<AddrinfoList> resolve(const Address& address, int flags) {
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = flags;
    addrinfo* list = nullptr;
    const int error = ::getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &list);
    if (error != 0) {
        return fail(Code::invalid, "{}: {}; give tcp:ADDR:PORT", address.text(), ::gai_strerror(error));
    }
    return AddrinfoList{list};
}

std::string numeric(const sockaddr* address, socklen_t length) {
    char host[NI_MAXHOST];
    char port[NI_MAXSERV];
    if (::getnameinfo(address, length, host, sizeof host, port, sizeof port,
                      NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return "unknown address";
    }
    return Address{host, port}.text();
}

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

// A copy of the parts from which what was transferred is cut off at the front.
class Remaining {
  public:
    explicit Remaining(std::span<const iovec> parts) : parts_(parts.begin(), parts.end()) { skip_empty(); }

    bool done() const { return at_ == parts_.size(); }
    msghdr header() {
        msghdr header{};
        header.msg_iov = parts_.data() + at_;
        header.msg_iovlen = std::min<std::size_t>(parts_.size() - at_, IOV_MAX);
        return header;
    }
    void advance(std::size_t bytes) {
        while (bytes > 0) {
            iovec& part = parts_[at_];
            const std::size_t taken = std::min(bytes, part.iov_len);
            part.iov_base = static_cast<std::byte*>(part.iov_base) + taken;
            part.iov_len -= taken;
            bytes -= taken;
            skip_empty();
        }
    }

  private:
    void skip_empty() {
        while (at_ < parts_.size() && parts_[at_].iov_len == 0) {
            ++at_;
        }
    }

    std::vector<iovec> parts_;
    std::size_t at_ = 0;
};

}  // namespace

Result<Address> Address::parse(std::string_view text) {
    constexpr std::string_view scheme = "tcp:";
    const std::size_t colon = text.rfind(':');
    if (!text.starts_with(scheme) || colon < scheme.size() || colon + 1 == text.size()) {
        return fail(Code::invalid, "\"{}\" is not an address; give tcp:ADDR:PORT", text);
    }
    Address address{std::string{text.substr(scheme.size(), colon - scheme.size())},
                    std::string{text.substr(colon + 1)}};
    if (address.host.size() >= 2 && address.host.front() == '[' && address.host.back() == ']') {
        address.host = address.host.substr(1, address.host.size() - 2);
    }
    const bool numeric_port =
        address.port.size() <= 5 &&
        std::all_of(address.port.begin(), address.port.end(), [](char c) { return c >= '0' && c <= '9'; }) &&
        std::stoul(address.port) <= 65535;
    if (address.host.empty() || !numeric_port) {
        return fail(Code::invalid, "\"{}\" is not an address; give tcp:ADDR:PORT with a port up to 65535",
                    text);
    }
    return address;
}

std::string Address::text() const {
    const bool ipv6 = host.find(':') != std::string::npos;
    return fmt::format("tcp:{}{}{}:{}", ipv6 ? "[" : "", host, ipv6 ? "]" : "", port);
}

Result<std::unique_ptr<SocketTransport>> SocketTransport::adopt(UniqueFd socket, std::string peer) {
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
    return std::unique_ptr<SocketTransport>(new SocketTransport(std::move(socket), std::move(peer)));
}

Result<void> SocketTransport::wait(short events, const Deadline& deadline, TimePoint& last_progress) const {
    // Room for more comes in large steps: on a slow link what the peer's host has acknowledged counts as
    // progress.
    std::uint64_t acknowledged = events == POLLOUT ? info_of(socket_.get()).tcpi_bytes_acked : UINT64_MAX;
    for (;;) {
        const TimePoint at = now();
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

Result<void> SocketTransport::transfer(std::span<const iovec> parts, const Deadline& deadline,
                                       Direction direction) {
    Remaining remaining{parts};
    TimePoint last_progress = now();
    while (!remaining.done()) {
        if (deadline.at && now() >= *deadline.at) {
            return fail(Code::timeout, "{} was too slow", peer_);
        }
        msghdr header = remaining.header();
        const ssize_t moved = direction == Direction::send ? ::sendmsg(socket_.get(), &header, MSG_NOSIGNAL)
                                                           : ::recvmsg(socket_.get(), &header, 0);
        if (moved > 0) {
            remaining.advance(static_cast<std::size_t>(moved));
            last_progress = now();
        } else if (moved == 0) {
            return fail(Code::closed, "{} closed the connection", peer_);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            TRY(wait(direction == Direction::send ? POLLOUT : POLLIN, deadline, last_progress));
        } else if (errno == EPIPE || errno == ECONNRESET) {
            return fail_errno(Code::closed, "connection to {}", peer_);
        } else if (errno == ETIMEDOUT) {
            return fail_errno(Code::timeout, "connection to {}", peer_);
        } else if (errno != EINTR) {
            return fail_errno(Code::io, "connection to {}", peer_);
        }
    }
    return {};
}

Result<void> SocketTransport::send(std::span<const iovec> parts, const Deadline& deadline) {
    return transfer(parts, deadline, Direction::send);
}

Result<void> SocketTransport::receive(std::span<const iovec> parts, const Deadline& deadline) {
    return transfer(parts, deadline, Direction::receive);
}

void SocketTransport::shutdown() {
    if (socket_) {
        (void)::shutdown(socket_.get(), SHUT_RDWR);
    }
}

void SocketTransport::abort() {
    // Dissolving the association (connect(2), AF_UNSPEC) purges the send queue and resets the connection.
    sockaddr nobody{};
    nobody.sa_family = AF_UNSPEC;
    (void)::connect(socket_.get(), &nobody, sizeof nobody);
}

double SocketTransport::delivery_rate() const {
    return static_cast<double>(info_of(socket_.get()).tcpi_delivery_rate);
}

Result<std::unique_ptr<Transport>> SocketConnector::connect(const Deadline& deadline) {
    const AddrinfoList list = TRY(resolve(address_, 0));
    vmm::Error last{Code::io, fmt::format("{}: no address", address_.text())};
    for (const addrinfo* entry = list.get(); entry != nullptr; entry = entry->ai_next) {
        UniqueFd socket{::socket(entry->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
        if (!socket) {
            last = fail_errno(Code::io, "socket").value();
            continue;
        }
        int error = ::connect(socket.get(), entry->ai_addr, entry->ai_addrlen) == 0 ? 0 : errno;
        if (error == EINPROGRESS) {
            const TimePoint start = now();
            TimePoint until = deadline.at.value_or(TimePoint::max());
            if (deadline.progress != vmm::Duration::max()) {
                until = std::min(until, start + deadline.progress);
            }
            int ready = 0;
            do {
                const auto left =
                    std::chrono::duration_cast<std::chrono::milliseconds>(until - now()).count();
                pollfd poll_entry{socket.get(), POLLOUT, 0};
                ready = ::poll(&poll_entry, 1, static_cast<int>(std::clamp<long long>(left, 0, INT_MAX)));
            } while (ready < 0 && errno == EINTR);
            socklen_t length = sizeof error;
            if (ready == 0) {
                error = ETIMEDOUT;
            } else if (ready < 0 || ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &length) != 0) {
                error = errno;
            }
        }
        if (error == 0) {
            return std::unique_ptr<Transport>(
                TRY(SocketTransport::adopt(std::move(socket), address_.text())));
        }
        last =
            vmm::Error::from_errno(Code::io,
                                   fmt::format("connect to {} (is `vmm receive --listen {}` running there?)",
                                               address_.text(), address_.text()),
                                   error);
    }
    return vmm::Failure{std::move(last)};
}

Result<Listener> Listener::listen(const Address& address) {
    const AddrinfoList list = TRY(resolve(address, AI_PASSIVE));
    UniqueFd socket{::socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (!socket) {
        return fail_errno(Code::io, "socket");
    }
    TRY(set_option(socket.get(), SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR"));
    if (::bind(socket.get(), list->ai_addr, list->ai_addrlen) != 0 || ::listen(socket.get(), 128) != 0) {
        return fail_errno(Code::io, "listen on {}", address.text());
    }
    sockaddr_storage bound{};
    socklen_t length = sizeof bound;
    if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&bound), &length) != 0) {
        return fail_errno(Code::io, "name of a listening socket");
    }
    return Listener{std::move(socket),
                    TRY(Address::parse(numeric(reinterpret_cast<sockaddr*>(&bound), length)))};
}

}  // namespace migration
