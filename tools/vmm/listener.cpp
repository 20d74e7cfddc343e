#include "tools/vmm/listener.hpp"

#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>

#include "tools/vmm/log.hpp"
#include "tools/vmm/path_checks.hpp"
#include "tools/vmm/places.hpp"
#include "vmm/base/advice.hpp"

namespace tools {

using migration::Address;
using vmm::Result;
using vmm::TimePoint;

namespace {

TimePoint now() {
    return vmm::real_clock().now();
}

std::string peer_text(const sockaddr_storage& address, socklen_t length) {
    std::array<char, NI_MAXHOST> host;
    std::array<char, NI_MAXSERV> port;
    const int error = ::getnameinfo(reinterpret_cast<const sockaddr*>(&address), length, host.data(),
                                    host.size(), port.data(), port.size(), NI_NUMERICHOST | NI_NUMERICSERV);
    return error != 0 ? "an unknown address" : Address{host.data(), port.data()}.text();
}

Result<migration::Listener> listen(const Address& address) {
    auto socket = migration::Listener::listen(address);
    const int error = socket ? 0 : socket.error().sys_errno();
    if (error == EADDRINUSE) {
        return advise(std::move(socket), "choose another port, or 0 for any that is free");
    }
    if (error == EADDRNOTAVAIL) {
        return advise(std::move(socket), "give an address of this host");
    }
    return socket;
}

}  // namespace

Result<std::unique_ptr<Listener>> Listener::create(const ReceiveOptions& options, EndSignals& signals) {
    const std::string directory = TRY(state_directory(options.guest.state_dir));
    TRY(check_records(directory));
    auto records = TRY(migration::RecordDirectory::open(directory));
    records.remove_expired();
    auto socket = TRY(listen(options.listen));
    const migration::Uuid boot_id = TRY(migration::host_boot_id());
    return std::unique_ptr<Listener>{
        new Listener{options, signals, std::move(socket), std::move(records), boot_id}};
}

std::variant<int, Accepted> Listener::run() {
    for (;;) {
        if (const auto status = finished()) {
            return *status;
        }
        wait();
        serve_signals();
        // Before new connections: a guest that has left makes room for the next one.
        serve_sessions();
        serve_connections();
        if (child_) {
            return std::move(*child_);
        }
        accept_connections();
        if (child_) {
            return std::move(*child_);
        }
    }
}

std::optional<int> Listener::finished() const {
    if (status_) {
        return resolved_ || now() >= leave_at_ ? status_ : std::nullopt;
    }
    const bool stands_for_guest =
        options_.once && std::any_of(sessions_.begin(), sessions_.end(), is_incoming);
    return stopping_ && !stands_for_guest ? std::optional{0} : std::nullopt;
}

void Listener::wait() {
    std::vector<pollfd> entries{{signals_.fd(), POLLIN, 0}};
    std::optional<TimePoint> until;
    const auto wake_at = [&](TimePoint at) { until = std::min(until.value_or(at), at); };
    if (now() >= accept_after_) {
        entries.push_back({listener_.socket.get(), POLLIN, 0});
    } else {
        wake_at(accept_after_);
    }
    for (const auto& connection : connections_) {
        // From one that waits for us nothing is due: what it sends, or its end, must not wake us again and
        // again.
        if (connection->state == Connection::State::hello ||
            connection->state == Connection::State::answered) {
            entries.push_back({connection->socket.get(), POLLIN, 0});
        }
        wake_at(connection->deadline);
    }
    for (const auto& session : sessions_) {
        if (!session->silent) {
            entries.push_back({session->channel.fd(), POLLIN, 0});
        }
        entries.push_back({session->pidfd.get(), POLLIN, 0});
        if (!session->pidfd) {
            wake_at(now() + std::chrono::seconds{1});  // out of descriptors: its end wakes nobody
        }
    }
    if (status_) {
        wake_at(leave_at_);
    }
    int timeout = -1;
    if (until) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(*until - now()).count();
        timeout = static_cast<int>(std::clamp<long long>(left, 0, 3'600'000));
    }
    (void)::poll(entries.data(), entries.size(), timeout);
}

void Listener::serve_signals() {
    while (signals_.take()) {
        stopping_ = true;
        // With --once this process stands for its guest; otherwise guests are processes of their own and live
        // on.
        for (const auto& session : sessions_) {
            if (options_.once && is_incoming(session)) {
                (void)::kill(session->pid, SIGTERM);
            }
        }
    }
}

void Listener::accept_connections() {
    while (now() >= accept_after_) {
        sockaddr_storage address{};
        socklen_t length = sizeof address;
        vmm::UniqueFd socket{::accept4(listener_.socket.get(), reinterpret_cast<sockaddr*>(&address), &length,
                                       SOCK_CLOEXEC | SOCK_NONBLOCK)};
        if (!socket) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                log_line("receive: accept failed with error {}; pausing", errno);
                accept_after_ = now() + std::chrono::milliseconds{200};
            } else if (errno == EINTR || errno == ECONNABORTED) {
                continue;
            }
            return;
        }
        if (connections_.size() >= kMaxPending) {
            // Who means it says Hello at once: it is read before room is made, however many came meanwhile.
            serve_connections();
            if (child_) {
                return;
            }
        }
        if (connections_.size() >= kMaxPending) {
            // The oldest that did not is the least likely to.
            const auto silent = std::find_if(
                connections_.begin(), connections_.end(),
                [](const auto& connection) { return connection->state == Connection::State::hello; });
            connections_.erase(silent == connections_.end() ? connections_.begin() : silent);
        }
        auto connection = std::make_unique<Connection>();
        connection->socket = std::move(socket);
        connection->peer = peer_text(address, length);
        connection->deadline = now() + kHelloLimit;
        connections_.push_back(std::move(connection));
    }
}

void Listener::serve_connections() {
    for (const auto& connection : connections_) {
        serve(*connection);
        if (child_) {
            return;
        }
    }
    std::erase_if(connections_,
                  [](const auto& connection) { return connection->state == Connection::State::done; });
}

void Listener::serve(Connection& connection) {
    if (connection.state == Connection::State::waiting) {
        return seat(connection);
    }
    if (connection.state == Connection::State::asking) {
        if (now() >= connection.deadline) {
            expire(connection);
        }
        return;
    }
    auto message = connection.reader.advance(connection.socket.get());
    if (!message) {
        if (connection.state == Connection::State::hello && message.error().code() != vmm::Code::closed) {
            log_line("receive: {} does not speak our protocol: {}", connection.peer, message.error().text());
        }
        connection.state = Connection::State::done;
    } else if (!*message) {
        if (now() >= connection.deadline) {
            expire(connection);
        }
    } else if (connection.state == Connection::State::answered) {
        if (std::holds_alternative<migration::Acknowledge>(**message) &&
            received_ == connection.hello.session && connection.outcome == migration::QueryOutcome::running) {
            resolved_ = true;
        }
        connection.state = Connection::State::done;
    } else if (auto* hello = std::get_if<migration::Hello>(&**message)) {
        connection.hello = std::move(*hello);
        on_hello(connection);
    } else {
        connection.state = Connection::State::done;
    }
}

void Listener::expire(Connection& connection) {
    if (connection.state == Connection::State::asking) {
        answer(connection, migration::QueryOutcome::unknown);
        return;
    }
    if (connection.state == Connection::State::hello) {
        log_line("receive: {} said nothing in time", connection.peer);
    }
    connection.state = Connection::State::done;
}

void Listener::on_hello(Connection& connection) {
    switch (connection.hello.purpose) {
        case migration::Purpose::control:
        case migration::Purpose::preflight:
            connection.state = Connection::State::waiting;
            connection.deadline = now() + kRoomLimit;
            return seat(connection);
        case migration::Purpose::data:
        case migration::Purpose::resume:
            join_session(connection);
            return;
        case migration::Purpose::query:
            ask_session(connection);
            return;
    }
}

}  // namespace tools
