// TlsChannel: the TLS of one connection over a socket that is never waited for. One thread at a time;
// TlsTransport adds the waiting, and the locking. It is inherited by fork, as its socket is; it cannot be
// passed.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "migration/tls_context.hpp"
#include "migration/transport.hpp"

struct ssl_st;

namespace migration {

class TlsChannel {
  public:
    enum class Role : std::uint8_t { client, server };

    // Over `socket`, which must outlive it and not block; `peer` is its address, for texts. The context must
    // outlive it too. `identity`: who has to be there; none: anybody with a certificate of the CA.
    static vmm::Result<std::unique_ptr<TlsChannel>> create(const TlsContext& context, Role role, int socket,
                                                           std::string peer,
                                                           const std::optional<TlsPeer>& identity);
    ~TlsChannel();
    TlsChannel(const TlsChannel&) = delete;
    TlsChannel& operator=(const TlsChannel&) = delete;

    // What the socket must be before the same call can do more.
    enum class Needs : std::uint8_t { nothing, readable, writable };

    // A client's first words. Nothing is read: the answer may be in the clear.
    vmm::Result<void> begin();
    // Nothing is needed: the peer is who it has to be. A client is done before the server has judged it: the
    // verdict is an error of the first receive().
    vmm::Result<Needs> handshake();

    struct Moved {
        std::size_t bytes = 0;
        Needs needs = Needs::nothing;  // where there are none
    };
    vmm::Result<Moved> receive(std::span<std::byte> to);
    // What the next receive() would fail with; takes nothing.
    vmm::Result<void> peek();
    vmm::Result<Moved> send(std::span<const std::byte> from);

    // From now on what send() encrypts is left in output(), for whoever empties it; and a record is read with
    // one call, not two. Not where the kernel encrypts.
    void work_in_bulk();
    std::vector<std::byte>& output() { return output_; }

    TlsFacts facts() const;

  private:
    struct Free {
        void operator()(ssl_st* ssl) const;
    };
    TlsChannel(std::unique_ptr<ssl_st, Free> ssl, std::string peer, std::string wanted)
        : ssl_(std::move(ssl)), peer_(std::move(peer)), wanted_(std::move(wanted)) {}

    // Of a call that returned `result`.
    vmm::Result<Needs> outcome(int result) const;
    vmm::Error failure(unsigned long error) const;
    vmm::Error unverified(long verdict) const;

    std::vector<std::byte> output_;
    std::unique_ptr<ssl_st, Free> ssl_;
    const std::string peer_;
    const std::string wanted_;  // the identity, for texts
    TlsContext::Sighting sighting_;
    bool established_ = false;
};

}  // namespace migration
