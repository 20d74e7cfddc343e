#include "tools/vmm/control_server.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <vector>

#include "tools/vmm/control_protocol.hpp"
#include "tools/vmm/log.hpp"

namespace tools {

using vmm::Result;

Result<std::unique_ptr<ControlServer>> ControlServer::listen(vmm::EventLoop& loop, const std::string& path,
                                                             Callbacks callbacks) {
    UnixListener listener = TRY(UnixListener::listen(path));
    std::unique_ptr<ControlServer> server{new ControlServer{loop, std::move(listener), std::move(callbacks)}};
    ControlServer* self = server.get();
    server->listener_watch_ =
        TRY(loop.watch(self->listener_.fd(), EPOLLIN, [self](std::uint32_t) { self->accept_clients(); }));
    return server;
}

void ControlServer::accept_clients() {
    for (;;) {
        vmm::UniqueFd socket{::accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
        if (!socket) {
            if (errno == EINTR || errno == ECONNABORTED) {
                continue;
            }
            if (errno != EAGAIN) {
                // Out of descriptors, say: ready for ever, so try again when a client has left.
                log_line("control socket {}: accept failed with error {}", path(), errno);
                listener_watch_.set_interest(0);
            }
            return;
        }
        if (clients_.size() >= kMaxClients) {
            continue;
        }
        const Client client = next_client_++;
        auto watch = loop_.watch(socket.get(), EPOLLIN,
                                 [this, client](std::uint32_t events) { ready(client, events); });
        if (!watch) {
            continue;
        }
        Connection& connection = clients_[client];
        connection.socket = std::move(socket);
        connection.watch = std::move(*watch);
    }
}

void ControlServer::ready(Client client, std::uint32_t events) {
    if ((events & EPOLLOUT) != 0 && !flush(client)) {
        callbacks_.gone(client);
        return;
    }
    if ((events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0 && !read(client)) {
        callbacks_.gone(client);
    }
}

bool ControlServer::read(Client client) {
    const auto found = clients_.find(client);
    if (found == clients_.end()) {
        return false;
    }
    Connection& connection = found->second;
    // One buffer a turn, and then everybody else's: what is left wakes us again.
    std::array<char, 4096> bytes;
    const ssize_t got = ::recv(connection.socket.get(), bytes.data(), bytes.size(), 0);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) {
        return true;
    }
    if (got <= 0) {
        drop(client);
        return false;
    }
    if (connection.closing) {
        return true;
    }
    connection.in.append({bytes.data(), static_cast<std::size_t>(got)});
    while (const auto line = connection.in.next()) {
        callbacks_.request(client, *line);
        if (clients_.find(client) == clients_.end()) {
            return false;
        }
    }
    if (connection.in.overflowed()) {
        connection.closing = true;
        send(client,
             error_line(nullptr,
                        {"invalid", fmt::format("a request is longer than {} bytes", LineBuffer::kMaxRequest),
                         "control socket", "send one JSON object a line"}));
        return clients_.find(client) != clients_.end();
    }
    return true;
}

void ControlServer::send(Client client, const std::string& line) {
    const auto found = clients_.find(client);
    if (found == clients_.end()) {
        return;
    }
    Connection& connection = found->second;
    if (connection.out.size() + line.size() > kMaxQueued) {
        drop(client);
        return;
    }
    connection.out += line;
    connection.out += '\n';
    (void)flush(client);
}

bool ControlServer::flush(Client client) {
    Connection& connection = clients_.at(client);
    std::size_t sent = 0;
    while (sent < connection.out.size()) {
        const ssize_t n = ::send(connection.socket.get(), connection.out.data() + sent,
                                 connection.out.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0) {
            sent += static_cast<std::size_t>(n);
        } else if (errno == EAGAIN) {
            break;
        } else if (errno != EINTR) {
            drop(client);
            return false;
        }
    }
    connection.out.erase(0, sent);
    if (connection.out.empty() && connection.closing) {
        drop(client);
        return false;
    }
    connection.watch.set_interest(connection.out.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT);
    return true;
}

void ControlServer::drop(Client client) {
    clients_.erase(client);
    if (listener_watch_) {
        listener_watch_.set_interest(EPOLLIN);
    }
}

void ControlServer::close_listener() {
    listener_watch_.reset();
    listener_.close();
}

void ControlServer::drain(vmm::Duration limit) {
    const vmm::TimePoint until = vmm::real_clock().now() + limit;
    for (;;) {
        std::vector<pollfd> waiting;
        std::vector<Client> clients;
        for (const auto& [client, connection] : clients_) {
            if (!connection.out.empty()) {
                waiting.push_back({connection.socket.get(), POLLOUT, 0});
                clients.push_back(client);
            }
        }
        const auto left =
            std::chrono::ceil<std::chrono::milliseconds>(until - vmm::real_clock().now()).count();
        if (waiting.empty() || left <= 0 ||
            ::poll(waiting.data(), waiting.size(), static_cast<int>(left)) < 0) {
            return;
        }
        for (std::size_t i = 0; i < waiting.size(); ++i) {
            if (waiting[i].revents != 0) {
                (void)flush(clients[i]);
            }
        }
    }
}

}  // namespace tools
