// Transport over a connected TCP socket, and the addresses of the command line.
#pragma once

#include "migration/connected_socket.hpp"

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
    explicit SocketTransport(ConnectedSocket socket) : socket_(std::move(socket)) {}
    static vmm::Result<std::unique_ptr<SocketTransport>> adopt(vmm::UniqueFd socket, std::string peer);

    vmm::Result<void> send(std::span<const iovec> parts, const Deadline& deadline) override {
        return socket_.transfer(parts, deadline, ConnectedSocket::Direction::send);
    }
    vmm::Result<void> receive(std::span<const iovec> parts, const Deadline& deadline) override {
        return socket_.transfer(parts, deadline, ConnectedSocket::Direction::receive);
    }
    void shutdown() override { socket_.shutdown(); }
    void abort() override { socket_.abort(); }
    double delivery_rate() const override { return socket_.delivery_rate(); }
    LinkSecurity security() const override { return {socket_.leaves_host(), std::nullopt}; }
    std::string peer() const override { return socket_.peer(); }

  private:
    ConnectedSocket socket_;
};

// How far a connection may go.
enum class Reach : std::uint8_t { this_host, anywhere };
vmm::Result<ConnectedSocket> connect_to(const Address& address, Reach reach, const Deadline& deadline);

// Plain connections: nobody may read along unless the user says so.
class SocketConnector final : public Connector {
  public:
    explicit SocketConnector(Address address, Reach reach = Reach::this_host)
        : address_(std::move(address)), reach_(reach) {}
    vmm::Result<std::unique_ptr<Transport>> connect(const Deadline& deadline) override;
    std::string address() const override { return address_.text(); }

  private:
    Address address_;
    Reach reach_;
};

struct Listener {
    vmm::UniqueFd socket;
    Address address;  // with the port that was really taken
    bool loopback = false;

    // Non-blocking, close-on-exec.
    static vmm::Result<Listener> listen(const Address& address);
};

}  // namespace migration
