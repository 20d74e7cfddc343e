#include "migration/transport_socket.hpp"

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
    return std::make_unique<SocketTransport>(TRY(ConnectedSocket::adopt(std::move(socket), std::move(peer))));
}

Result<ConnectedSocket> connect_to(const Address& address, Reach reach, const Deadline& deadline) {
    const AddrinfoList list = TRY(resolve(address, 0));
    vmm::Error last{Code::io, fmt::format("{}: no address", address.text())};
    for (const addrinfo* entry = list.get(); entry != nullptr; entry = entry->ai_next) {
        if (reach == Reach::this_host && !is_loopback(*entry->ai_addr)) {
            last = {Code::refused,
                    fmt::format("{} is not on this host, and without TLS the guest's memory could be read "
                                "and changed on the way; give --tls-dir, or --insecure to do so all the same",
                                address.text())};
            continue;
        }
        UniqueFd socket{::socket(entry->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
        if (!socket) {
            last = fail_errno(Code::io, "socket").value();
            continue;
        }
        int error = ::connect(socket.get(), entry->ai_addr, entry->ai_addrlen) == 0 ? 0 : errno;
        if (error == EINPROGRESS) {
            const TimePoint start = vmm::real_clock().now();
            TimePoint until = deadline.at.value_or(TimePoint::max());
            if (deadline.progress != vmm::Duration::max()) {
                until = std::min(until, start + deadline.progress);
            }
            int ready = 0;
            do {
                const auto left =
                    std::chrono::duration_cast<std::chrono::milliseconds>(until - vmm::real_clock().now())
                        .count();
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
            return ConnectedSocket::adopt(std::move(socket), address.text());
        }
        last =
            vmm::Error::from_errno(Code::io,
                                   fmt::format("connect to {} (is `vmm receive --listen {}` running there?)",
                                               address.text(), address.text()),
                                   error);
    }
    return vmm::Failure{std::move(last)};
}

Result<std::unique_ptr<Transport>> SocketConnector::connect(const Deadline& deadline) {
    return std::unique_ptr<Transport>{
        std::make_unique<SocketTransport>(TRY(connect_to(address_, reach_, deadline)))};
}

Result<Listener> Listener::listen(const Address& address) {
    const AddrinfoList list = TRY(resolve(address, AI_PASSIVE));
    UniqueFd socket{::socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (!socket) {
        return fail_errno(Code::io, "socket");
    }
    const int reuse = 1;
    if (::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof reuse) != 0) {
        return fail_errno(Code::io, "set SO_REUSEADDR");
    }
    if (::bind(socket.get(), list->ai_addr, list->ai_addrlen) != 0 || ::listen(socket.get(), 128) != 0) {
        return fail_errno(Code::io, "listen on {}", address.text());
    }
    sockaddr_storage bound{};
    socklen_t length = sizeof bound;
    if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&bound), &length) != 0) {
        return fail_errno(Code::io, "name of a listening socket");
    }
    const auto& name = reinterpret_cast<const sockaddr&>(bound);
    return Listener{std::move(socket), TRY(Address::parse(numeric(&name, length))), is_loopback(name)};
}

}  // namespace migration
