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

std::string peer_text(const sockaddr_storage& address, socklen_t length) {
    std::array<char, NI_MAXHOST> host;
    std::array<char, NI_MAXSERV> port;
    const int error = ::getnameinfo(reinterpret_cast<const sockaddr*>(&address), length, host.data(),
                                    host.size(), port.data(), port.size(), NI_NUMERICHOST | NI_NUMERICSERV);
    return error != 0 ? "an unknown address" : Address{host.data(), port.data()}.text();
}

Result<migration::Listener> listen(const ReceiveOptions& options) {
    const Address& address = options.listen;
    auto socket = migration::Listener::listen(address);
    const int error = socket ? 0 : socket.error().sys_errno();
    if (error == EADDRINUSE) {
        return advise(std::move(socket), "choose another port, or 0 for any that is free");
    }
    if (error == EADDRNOTAVAIL) {
        return advise(std::move(socket), "give an address of this host");
    }
    const bool exposed = socket && !socket->loopback && options.tls == nullptr;
    if (exposed && !options.link.insecure) {
        return vmm::fail(
            vmm::Code::invalid,
            "{} can be reached from other hosts, and without TLS anybody there can read and change guests on "
            "the way, or send their own; give --tls-dir, or --insecure to do so all the same",
            socket->address.text());
    }
    if (exposed) {
        log_line(
            "warning: without TLS anybody who can reach {} can read and change guests on the way, or send "
            "their own",
            socket->address.text());
    }
    return socket;
}

}  // namespace

Result<std::unique_ptr<Listener>> Listener::create(const ReceiveOptions& options, EndSignals& signals) {
    const std::string directory = TRY(state_directory(options.guest.state_dir));
    TRY(check_records(directory));
    auto records = TRY(migration::RecordDirectory::open(directory));
    records.remove_expired();
    auto socket = TRY(listen(options));
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
        // From one that waits for us nothing is due: what it sends must not wake us again and again, nor its
        // end, unless that ends its wait.
        if (connection->is_silent() || connection->state == Connection::State::answered) {
            const short events = connection->wants_room ? POLLOUT : POLLIN;
            entries.push_back({connection->socket.get(), events, 0});
        }
        wake_at(connection->deadline);
        if (connection->state == Connection::State::waiting) {
            entries.push_back({connection->socket.get(), POLLRDHUP, 0});
        }
        if (connection->is_queued()) {
            wake_at(connection->tell_at);
        }
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
    // However fast they come, sessions and signals have their turn in between.
    for (std::size_t taken = 0; taken < 8 * kMaxPending && now() >= accept_after_; ++taken) {
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
        if (pending() >= kMaxPending) {
            // Who means it says Hello at once: it is read before room is made, however many came meanwhile.
            serve_connections();
            if (child_) {
                return;
            }
        }
        if (pending() >= kMaxPending) {
            // The oldest that did not is the least likely to.
            const auto silent = std::find_if(connections_.begin(), connections_.end(),
                                             [](const auto& connection) { return connection->is_silent(); });
            const auto oldest = std::find_if(connections_.begin(), connections_.end(),
                                             [](const auto& connection) { return !connection->is_queued(); });
            connections_.erase(silent == connections_.end() ? oldest : silent);
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
    seat_waiting();
    if (child_) {
        return;
    }
    std::erase_if(connections_,
                  [](const auto& connection) { return connection->state == Connection::State::done; });
}

void Listener::serve(Connection& connection) {
    if (connection.state == Connection::State::waiting) {
        return;  // for seat_waiting()
    }
    if (connection.state == Connection::State::asking) {
        if (now() >= connection.deadline) {
            expire(connection);
        }
        return;
    }
    if (connection.state == Connection::State::handshake) {
        advance_handshake(connection);
        if (connection.state != Connection::State::hello) {
            return;
        }
    }
    auto read =
        connection.reader.advance([&connection](std::span<std::byte> to) { return connection.receive(to); });
    if (read && *read && std::holds_alternative<migration::TlsPreamble>(**read)) {
        return on_preamble(connection, std::get<migration::TlsPreamble>(**read));
    }
    const auto* message = read && *read ? std::get_if<migration::Message>(&**read) : nullptr;
    if (!read) {
        if (connection.state == Connection::State::hello && read.error().code() != vmm::Code::closed) {
            log_line("receive: {} does not speak our protocol: {}", connection.peer, read.error().text());
        }
        connection.state = Connection::State::done;
    } else if (message == nullptr) {
        if (now() >= connection.deadline) {
            expire(connection);
        }
    } else if (connection.state == Connection::State::answered) {
        if (std::holds_alternative<migration::Acknowledge>(*message) &&
            received_ == connection.hello.session && connection.outcome == migration::QueryOutcome::running) {
            resolved_ = true;
        }
        connection.state = Connection::State::done;
    } else if (const auto* hello = std::get_if<migration::Hello>(message)) {
        connection.hello = *hello;
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
    if (connection.is_silent()) {
        log_line("receive: {} said nothing in time", connection.peer);
    }
    connection.state = Connection::State::done;
}

void Listener::on_preamble(Connection& connection, const migration::TlsPreamble& preamble) {
    if (connection.state != Connection::State::hello || connection.preamble) {
        connection.state = Connection::State::done;
    } else if (options_.tls == nullptr) {
        log_line("receive: {} wants TLS, and this listener has no --tls-dir", connection.peer);
        reply(connection, migration::HelloStatus::unknown_session,
              "`vmm receive` there has no --tls-dir; give it one, or migrate without");
    } else if (preamble.purpose == migration::Purpose::data ||
               preamble.purpose == migration::Purpose::resume) {
        // Its session proves who it is: what TLS holds cannot be passed to another process.
        migration::Hello hello;
        hello.purpose = preamble.purpose;
        hello.session = preamble.session;
        pass_on(connection, find(preamble.session), hello);
    } else {
        auto channel =
            migration::TlsChannel::create(*options_.tls, migration::TlsChannel::Role::server,
                                          connection.socket.get(), connection.peer, options_.link.tls_peer);
        if (!channel) {
            log_line("receive: {}", channel.error().text());
            connection.state = Connection::State::done;
            return;
        }
        connection.tls = std::move(*channel);
        connection.preamble = preamble;
        connection.state = Connection::State::handshake;
        serve(connection);
    }
}

void Listener::advance_handshake(Connection& connection) {
    const auto needs = connection.tls->handshake();
    if (!needs) {
        log_line("receive: turned away: {}", needs.error().text());
        connection.state = Connection::State::done;
    } else if (*needs == migration::TlsChannel::Needs::nothing) {
        connection.state = Connection::State::hello;
        connection.wants_room = false;
    } else if (now() >= connection.deadline) {
        expire(connection);
    } else {
        connection.wants_room = *needs == migration::TlsChannel::Needs::writable;
    }
}

void Listener::on_hello(Connection& connection) {
    const migration::TlsPreamble said{connection.hello.purpose, connection.hello.session};
    if (options_.tls != nullptr && connection.preamble != said) {
        // In the clear, or not what it was let in for.
        log_line("receive: {} {}; this listener takes TLS only (--tls-dir)", connection.peer,
                 connection.tls ? "changed its mind" : "does not use TLS");
        return reply(connection, migration::HelloStatus::unknown_session,
                     "`vmm receive` there takes TLS only; give --tls-dir here too");
    }
    switch (connection.hello.purpose) {
        case migration::Purpose::control:
        case migration::Purpose::preflight:
            connection.state = Connection::State::waiting;
            connection.deadline = now() + kRoomLimit;
            connection.arrival = next_arrival_++;
            return;
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
