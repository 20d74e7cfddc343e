// TlsTransport: Transport over TLS. What waits, and for how long, is ConnectedSocket's, as without TLS.
#pragma once

#include <mutex>

#include "migration/connected_socket.hpp"
#include "migration/tls_channel.hpp"
#include "migration/transport_socket.hpp"

namespace migration {

class TlsTransport final : public Transport {
  public:
    // Who connects. The context must outlive it.
    static vmm::Result<std::unique_ptr<TlsTransport>> client(ConnectedSocket socket,
                                                             const TlsContext& context,
                                                             const TlsPeer& identity);
    // Who accepts: handshake() is still due.
    static vmm::Result<std::unique_ptr<TlsTransport>> server(ConnectedSocket socket,
                                                             const TlsContext& context,
                                                             const std::optional<TlsPeer>& identity);
    // Another has completed the handshake on this socket.
    static std::unique_ptr<TlsTransport> adopt(ConnectedSocket socket, std::unique_ptr<TlsChannel> channel);

    vmm::Result<void> handshake(const Deadline& deadline);

    vmm::Result<void> introduce(const Hello& hello, const Deadline& deadline) override;
    vmm::Result<void> send(std::span<const iovec> parts, const Deadline& deadline) override;
    vmm::Result<void> receive(std::span<const iovec> parts, const Deadline& deadline) override;
    void shutdown() override { socket_.shutdown(); }
    void abort() override { socket_.abort(); }
    double delivery_rate() const override { return socket_.delivery_rate(); }
    LinkSecurity security() const override { return {false, facts_}; }
    std::string peer() const override { return socket_.peer(); }

  private:
    TlsTransport(ConnectedSocket socket, std::unique_ptr<TlsChannel> channel)
        : socket_(std::move(socket)), channel_(std::move(channel)) {}

    void established();
    vmm::Result<void> check_established() const;
    // A listener without TLS answers in the clear, and says so.
    vmm::Result<void> check_plain_answer(const Deadline& deadline) const;
    vmm::Result<void> encrypt(std::span<const iovec> parts, const Deadline& deadline);
    vmm::Result<void> flush(const Deadline& deadline);
    // The peer's verdict may have come behind our back: that, or else `error`.
    vmm::Error last_alert(vmm::Error error);

    const ConnectedSocket socket_;
    std::unique_ptr<TlsChannel> channel_;
    std::optional<TlsFacts> facts_;    // once the handshake is done
    std::mutex mutex_;                 // channel_, which knows one thread at a time; no wait under it
    std::vector<std::byte> outgoing_;  // of the thread that sends
};

class TlsConnector final : public Connector {
  public:
    // `identity`: who must be there, instead of the host that the address names.
    TlsConnector(Address address, std::shared_ptr<const TlsContext> context, std::optional<TlsPeer> identity)
        : address_(std::move(address)), context_(std::move(context)), identity_(std::move(identity)) {}

    vmm::Result<std::unique_ptr<Transport>> connect(const Deadline& deadline) override;
    std::string address() const override { return address_.text(); }

  private:
    Address address_;
    std::shared_ptr<const TlsContext> context_;
    std::optional<TlsPeer> identity_;
};

}  // namespace migration
