// Transport over a connected TCP socket, and the addresses of the command line.
#pragma once

#include "migration/transport.hpp"
#include "vmm/base/unique_fd.hpp"

namespace migration {

// "tcp:ADDR:PORT"; ADDR is a name or a numeric address, IPv6 in brackets; port 0 (listening only) takes a
// free one.
struct Address {
    std::string host;
    std::string port;

    static vmm::Result<Address> parse(std::string_view text);
    std::string text() const;
};

class SocketTransport final : public Transport {
  public:
    // Takes a connected stream socket: sets TCP_NODELAY, keep-alive and TCP_USER_TIMEOUT, so that a dead peer
    // is noticed in seconds.
    static vmm::Result<std::unique_ptr<SocketTransport>> adopt(vmm::UniqueFd socket, std::string peer);

    vmm::Result<void> send(std::span<const iovec> parts, const Deadline& deadline) override;
    vmm::Result<void> receive(std::span<const iovec> parts, const Deadline& deadline) override;
    void shutdown() override;
    void abort() override;
    double delivery_rate() const override;
    std::string peer() const override { return peer_; }

  private:
    SocketTransport(vmm::UniqueFd socket, std::string peer)
        : socket_(std::move(socket)), peer_(std::move(peer)) {}

    enum class Direction { send, receive };
    vmm::Result<void> transfer(std::span<const iovec> parts, const Deadline& deadline, Direction direction);
    // `last_progress` moves on while what was sent before is on its way.
    vmm::Result<void> wait(short events, const Deadline& deadline, vmm::TimePoint& last_progress) const;

    vmm::UniqueFd socket_;
    std::string peer_;
};

class SocketConnector final : public Connector {
  public:
    explicit SocketConnector(Address address) : address_(std::move(address)) {}
    vmm::Result<std::unique_ptr<Transport>> connect(const Deadline& deadline) override;
    std::string address() const override { return address_.text(); }

  private:
    Address address_;
};

struct Listener {
    vmm::UniqueFd socket;
    Address address;  // with the port that was really taken

    // Non-blocking, close-on-exec.
    static vmm::Result<Listener> listen(const Address& address);
};

}  // namespace migration
