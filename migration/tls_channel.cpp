#include "migration/tls_channel.hpp"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "migration/ids.hpp"
#include "vmm/base/check.hpp"

namespace migration {

using vmm::Code;
using vmm::fail;
using vmm::Result;

namespace {

// Before a peer has proved anything: what it may make us read.
constexpr std::uint64_t kMaxHandshake = 32 << 10;
// What may wait to be sent while nothing is: answers to a peer that asks for new keys again and again. A
// frame that is being sent is smaller.
constexpr std::size_t kMaxAnswers = 4 << 20;

// Where send() leaves what it has encrypted, instead of the socket.
int append_output(BIO* bio, const char* bytes, std::size_t size, std::size_t* written) {
    auto* output = static_cast<std::vector<std::byte>*>(BIO_get_data(bio));
    const auto* begin = reinterpret_cast<const std::byte*>(bytes);
    output->insert(output->end(), begin, begin + size);
    *written = size;
    return 1;
}

long control_output(BIO*, int command, long, void*) {
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

BIO_METHOD* output_method() {
    static BIO_METHOD* const method = [] {
        BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "output");
        VERIFY(made != nullptr);
        BIO_meth_set_write_ex(made, append_output);
        BIO_meth_set_ctrl(made, control_output);
        return made;
    }();
    return method;
}

}  // namespace

void TlsChannel::Free::operator()(ssl_st* ssl) const {
    SSL_free(ssl);
}

TlsChannel::~TlsChannel() = default;

Result<std::unique_ptr<TlsChannel>> TlsChannel::create(const TlsContext& context, Role role, int socket,
                                                       std::string peer,
                                                       const std::optional<TlsPeer>& identity) {
    std::unique_ptr<SSL, Free> made{SSL_new(context.get())};
    if (!made || SSL_set_fd(made.get(), socket) != 1) {
        ERR_clear_error();
        return fail(Code::io, "OpenSSL could not begin a connection");
    }
    SSL* const ssl = made.get();
    std::unique_ptr<TlsChannel> channel{
        new TlsChannel{std::move(made), std::move(peer), identity ? identity->text() : ""}};
    TlsContext::watch(ssl, channel->sighting_);
    if (identity && identity->fingerprint() != nullptr) {
        channel->sighting_.wanted = *identity->fingerprint();
    } else if (identity) {
        X509_VERIFY_PARAM* const demands = SSL_get0_param(ssl);
        X509_VERIFY_PARAM_set_hostflags(
            demands, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
        const std::string& name = *identity->name();
        // Not an address: a name.
        if (X509_VERIFY_PARAM_set1_ip_asc(demands, name.c_str()) != 1 &&
            X509_VERIFY_PARAM_set1_host(demands, name.c_str(), name.size()) != 1) {
            ERR_clear_error();
            return fail(Code::invalid, "\"{}\" cannot be the name of a peer", name);
        }
        ERR_clear_error();
    }
    if (role == Role::client) {
        SSL_set_connect_state(ssl);
    } else {
        SSL_set_accept_state(ssl);
    }
    return channel;
}

Result<TlsChannel::Needs> TlsChannel::outcome(int result) const {
    const int saved_errno = errno;
    switch (SSL_get_error(ssl_.get(), result)) {
        case SSL_ERROR_NONE:
            return Needs::nothing;
        case SSL_ERROR_WANT_READ:
            return Needs::readable;
        case SSL_ERROR_WANT_WRITE:
            return Needs::writable;
        case SSL_ERROR_SSL:
            return vmm::Failure{failure(ERR_peek_last_error())};
        case SSL_ERROR_SYSCALL:
            if (saved_errno != 0) {
                const bool closed =
                    saved_errno == EPIPE || saved_errno == ECONNRESET || saved_errno == ENOTCONN;
                const Code code = closed ? Code::closed : saved_errno == ETIMEDOUT ? Code::timeout : Code::io;
                return vmm::Failure{
                    vmm::Error::from_errno(code, fmt::format("connection to {}", peer_), saved_errno)};
            }
            break;
        default:
            break;
    }
    // With or without a farewell: frames say how long they are, so nobody can pass a part off as the whole.
    return fail(Code::closed, "{} closed the connection", peer_);
}

vmm::Error TlsChannel::failure(unsigned long error) const {
    const int reason = ERR_GET_REASON(error);
    const long verdict = SSL_get_verify_result(ssl_.get());
    if (ERR_GET_LIB(error) == ERR_LIB_SSL) {
        if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
            return {Code::closed, fmt::format("{} closed the connection", peer_)};
        }
        if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
            return {Code::refused, fmt::format("{} has shown no certificate", peer_)};
        }
        if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED && verdict != X509_V_OK) {
            return unverified(verdict);
        }
        if (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST) {
            return {Code::foreign, fmt::format("{}: something that does not speak TLS answers", peer_)};
        }
        if (reason == SSL_R_UNSUPPORTED_PROTOCOL || reason == SSL_R_NO_PROTOCOLS_AVAILABLE) {
            return {Code::refused, fmt::format("{} does not offer TLS 1.3", peer_)};
        }
        if (reason > SSL_AD_REASON_OFFSET) {
            const int alert = reason - SSL_AD_REASON_OFFSET;
            return {Code::refused,
                    fmt::format("{} does not accept {} (TLS alert: {}); its log says why", peer_,
                                alert == SSL_AD_PROTOCOL_VERSION ? "TLS 1.3" : "our certificate",
                                SSL_alert_desc_string_long(alert))};
        }
    }
    const char* text = ERR_reason_error_string(error);
    return {Code::protocol, fmt::format("{} broke TLS: {}", peer_, text != nullptr ? text : "unknown error")};
}

vmm::Error TlsChannel::unverified(long verdict) const {
    const std::string_view why = X509_verify_cert_error_string(verdict);
    if (verdict == X509_V_ERR_HOSTNAME_MISMATCH || verdict == X509_V_ERR_IP_ADDRESS_MISMATCH ||
        verdict == X509_V_ERR_APPLICATION_VERIFICATION) {
        return {Code::refused,
                fmt::format("the certificate of {} is not the one of \"{}\"{}; see --tls-peer", peer_,
                            wanted_, sighting_.seen ? " but sha256:" + to_hex(*sighting_.seen) : "")};
    }
    return {Code::refused,
            fmt::format("the certificate of {} is not accepted: {}; give both hosts certificates of one CA",
                        peer_, why)};
}

Result<void> TlsChannel::begin() {
    BIO* const nothing = BIO_new(BIO_s_mem());
    BIO* const socket = SSL_get_rbio(ssl_.get());
    VERIFY(nothing != nullptr && BIO_up_ref(socket) == 1);
    BIO_set_mem_eof_return(nothing, -1);  // "not yet"
    SSL_set0_rbio(ssl_.get(), nothing);
    const auto begun = handshake();
    SSL_set0_rbio(ssl_.get(), socket);
    return begun ? Result<void>{} : vmm::Failure{begun.error()};
}

Result<TlsChannel::Needs> TlsChannel::handshake() {
    ERR_clear_error();
    errno = 0;
    const Needs needs = TRY(outcome(SSL_do_handshake(ssl_.get())));
    if (BIO_number_read(SSL_get_rbio(ssl_.get())) > kMaxHandshake) {
        return fail(Code::limit, "{} sends more than a handshake takes", peer_);
    }
    established_ = needs == Needs::nothing;
    return needs;
}

Result<TlsChannel::Moved> TlsChannel::receive(std::span<std::byte> to) {
    VERIFY(established_);
    ERR_clear_error();
    errno = 0;
    Moved moved;
    const int result = SSL_read_ex(ssl_.get(), to.data(), to.size(), &moved.bytes);
    moved.needs = TRY(outcome(result));
    if (output_.size() > kMaxAnswers) {
        return fail(Code::limit, "{} asks for new keys and takes none", peer_);
    }
    return moved;
}

Result<void> TlsChannel::peek() {
    VERIFY(established_);
    ERR_clear_error();
    errno = 0;
    std::byte next{};
    std::size_t seen = 0;
    TRY(outcome(SSL_peek_ex(ssl_.get(), &next, 1, &seen)));
    return {};
}

Result<TlsChannel::Moved> TlsChannel::send(std::span<const std::byte> from) {
    VERIFY(established_);
    ERR_clear_error();
    errno = 0;
    Moved moved;
    const int result = SSL_write_ex(ssl_.get(), from.data(), from.size(), &moved.bytes);
    moved.needs = TRY(outcome(result));
    return moved;
}

void TlsChannel::work_in_bulk() {
    if (facts().kernel_sends) {
        return;
    }
    BIO* const output = BIO_new(output_method());
    VERIFY(output != nullptr);
    BIO_set_data(output, &output_);
    BIO_set_init(output, 1);
    SSL_set0_wbio(ssl_.get(), output);
    if (!facts().kernel_receives) {
        SSL_set_read_ahead(ssl_.get(), 1);
    }
}

TlsFacts TlsChannel::facts() const {
    const SSL* ssl = ssl_.get();
    return {SSL_get_version(ssl), SSL_get_cipher_name(ssl), BIO_get_ktls_send(SSL_get_wbio(ssl)) == 1,
            BIO_get_ktls_recv(SSL_get_rbio(ssl)) == 1};
}

}  // namespace migration
