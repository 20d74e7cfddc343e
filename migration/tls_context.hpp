// TlsContext: who we are and whom we trust, from one directory. PROTOCOL.md section 1 says what is demanded
// of a peer.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "vmm/base/result.hpp"

struct ssl_st;
struct ssl_ctx_st;
struct x509_st;

namespace migration {

using Fingerprint = std::array<std::uint8_t, 32>;  // SHA-256 of a certificate

std::optional<Fingerprint> fingerprint_of(const x509_st* certificate);

// Who a peer has to be, beyond having a certificate of our CA.
class TlsPeer {
  public:
    // "sha256:HEX", colons allowed between bytes; or a name or address that the certificate must be for.
    static vmm::Result<TlsPeer> parse(std::string_view text);

    const std::string* name() const { return std::get_if<std::string>(&identity_); }
    const Fingerprint* fingerprint() const { return std::get_if<Fingerprint>(&identity_); }
    std::string text() const;

  private:
    explicit TlsPeer(std::variant<std::string, Fingerprint> identity) : identity_(std::move(identity)) {}
    std::variant<std::string, Fingerprint> identity_;
};

class TlsContext {
  public:
    static constexpr const char* kCa = "ca.pem";
    static constexpr const char* kCertificate = "cert.pem";
    static constexpr const char* kKey = "key.pem";

    // Reads the three files, once: what is wrong with them is said now, in one line, and not by a peer later.
    static vmm::Result<std::shared_ptr<const TlsContext>> load(const std::string& directory);
    ~TlsContext();
    TlsContext(const TlsContext&) = delete;
    TlsContext& operator=(const TlsContext&) = delete;

    // TLS 1.3 only, both sides with certificates, no tickets.
    ssl_ctx_st* get() const { return context_.get(); }

    struct Sighting {
        std::optional<Fingerprint> wanted;  // none: a certificate is judged by its CA and name alone
        std::optional<Fingerprint> seen;    // of the peer's certificate, whatever is thought of it
    };
    // Of every connection, before its handshake; it must outlive the connection.
    static void watch(ssl_st* connection, Sighting& sighting);

  private:
    struct Free {
        void operator()(ssl_ctx_st* context) const;
    };
    explicit TlsContext(std::unique_ptr<ssl_ctx_st, Free> context) : context_(std::move(context)) {}
    std::unique_ptr<ssl_ctx_st, Free> context_;
};

}  // namespace migration
