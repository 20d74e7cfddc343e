#include "migration/tls_context.hpp"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "migration/ids.hpp"
#include "vmm/base/advice.hpp"
#include "vmm/base/unique_fd.hpp"

namespace migration {

using vmm::Code;
using vmm::fail;
using vmm::Result;

namespace {

constexpr std::size_t kMaxFile = std::size_t{1} << 20;

template <auto F>
struct Release {
    template <typename T>
    void operator()(T* object) const {
        F(object);
    }
};
using Bio = std::unique_ptr<BIO, Release<BIO_free>>;
using Certificate = std::unique_ptr<X509, Release<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Release<EVP_PKEY_free>>;
using Verification = std::unique_ptr<X509_STORE_CTX, Release<X509_STORE_CTX_free>>;
using Stack = std::unique_ptr<STACK_OF(X509), Release<[](STACK_OF(X509) * stack) { sk_X509_free(stack); }>>;

// A secret does not stay behind in freed memory.
struct Contents {
    Contents() = default;
    Contents(Contents&&) = default;
    Contents& operator=(Contents&&) = delete;
    ~Contents() { OPENSSL_cleanse(bytes.data(), bytes.size()); }
    Bio bio() const { return Bio{BIO_new_mem_buf(bytes.data(), static_cast<int>(bytes.size()))}; }

    std::vector<char> bytes;
};

enum class Readers { any, owner };

Result<Contents> read_file(const std::string& path, Readers readers) {
    const vmm::UniqueFd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)};
    struct stat status {};
    if (!file || ::fstat(file.get(), &status) != 0) {
        return vmm::fail_errno(Code::invalid, "{}", path);
    }
    if (!S_ISREG(status.st_mode) || static_cast<std::uint64_t>(status.st_size) > kMaxFile) {
        return fail(Code::invalid, "{} is not a file of PEM text", path);
    }
    if (readers == Readers::owner && (status.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        return fail(Code::invalid, "{} has mode {:04o}, so others could read the key; `chmod 600 {}`", path,
                    status.st_mode & 07777u, path);
    }
    Contents contents;
    contents.bytes.resize(static_cast<std::size_t>(status.st_size));
    const ssize_t got = ::pread(file.get(), contents.bytes.data(), contents.bytes.size(), 0);
    if (got < 0 || static_cast<std::size_t>(got) != contents.bytes.size()) {
        return vmm::fail_errno(Code::io, "read {}", path);
    }
    return contents;
}

Result<std::vector<Certificate>> read_certificates(const std::string& path) {
    const Contents contents = TRY(read_file(path, Readers::any));
    const Bio bio = contents.bio();
    std::vector<Certificate> found;
    while (X509* next = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) {
        found.emplace_back(next);
    }
    ERR_clear_error();  // the end of the file is one
    if (found.empty()) {
        return fail(Code::invalid, "{} holds no certificate in PEM", path);
    }
    return found;
}

Result<Key> read_key(const std::string& path) {
    const Contents contents = TRY(read_file(path, Readers::owner));
    const Bio bio = contents.bio();
    // Nobody is there to be asked for a password.
    const auto no_password = [](char*, int, int, void*) { return -1; };
    Key key{PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr)};
    ERR_clear_error();
    if (!key) {
        return fail(Code::invalid, "{} holds no private key in PEM that needs no password", path);
    }
    return key;
}

Result<void> check_dates(X509* certificate, const std::string& path) {
    if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0) {
        return fail(Code::invalid, "{} has expired; make a new one", path);
    }
    if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0) {
        return fail(Code::invalid, "{} is not valid yet; check the clock of this host", path);
    }
    return {};
}

// What a peer would say, said here.
Result<void> check_chain(X509_STORE* store, const std::vector<Certificate>& chain,
                         const std::string& directory) {
    const Stack others{sk_X509_new_null()};
    for (const Certificate& certificate : chain) {
        sk_X509_push(others.get(), certificate.get());
    }
    const Verification verification{X509_STORE_CTX_new()};
    if (!verification ||
        X509_STORE_CTX_init(verification.get(), store, chain.front().get(), others.get()) != 1) {
        return fail(Code::io, "OpenSSL could not begin to verify a certificate");
    }
    if (X509_verify_cert(verification.get()) != 1) {
        return fail(Code::invalid, "{}/{} is not from the CA in {}/{}: {}; make them together", directory,
                    TlsContext::kCertificate, directory, TlsContext::kCa,
                    X509_verify_cert_error_string(X509_STORE_CTX_get_error(verification.get())));
    }
    return {};
}

// Instead of OpenSSL's own, so that a wrong fingerprint ends the handshake as a wrong name does.
int verify_peer(X509_STORE_CTX* verification, void*) {
    const auto* ssl = static_cast<const SSL*>(
        X509_STORE_CTX_get_ex_data(verification, SSL_get_ex_data_X509_STORE_CTX_idx()));
    auto* sighting = static_cast<TlsContext::Sighting*>(SSL_get_app_data(ssl));
    sighting->seen = fingerprint_of(X509_STORE_CTX_get0_cert(verification));
    if (X509_verify_cert(verification) != 1) {
        return 0;
    }
    if (sighting->wanted && sighting->seen != sighting->wanted) {
        X509_STORE_CTX_set_error(verification, X509_V_ERR_APPLICATION_VERIFICATION);
        return 0;
    }
    return 1;
}

std::uint8_t digit(char c) {
    return static_cast<std::uint8_t>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
}

}  // namespace

std::optional<Fingerprint> fingerprint_of(const X509* certificate) {
    Fingerprint fingerprint{};
    unsigned length = 0;
    if (certificate == nullptr || X509_digest(certificate, EVP_sha256(), fingerprint.data(), &length) != 1 ||
        length != fingerprint.size()) {
        return std::nullopt;
    }
    return fingerprint;
}

Result<TlsPeer> TlsPeer::parse(std::string_view text) {
    constexpr std::string_view scheme = "sha256:";
    if (!text.starts_with(scheme)) {
        const bool printable =
            std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f; });
        if (text.empty() || text.size() > 255 || !printable) {
            return fail(Code::invalid, "\"{}\" is not a peer; give a name, an address, or sha256:HEX", text);
        }
        return TlsPeer{std::string{text}};
    }
    std::string digits;
    for (const char c : text.substr(scheme.size())) {
        if (c != ':') {
            digits += c;
        }
    }
    Fingerprint fingerprint{};
    if (digits.size() != 2 * fingerprint.size() ||
        digits.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos) {
        return fail(Code::invalid, "\"{}\" is not a fingerprint; give sha256: and 64 hexadecimal digits",
                    text);
    }
    for (std::size_t i = 0; i < fingerprint.size(); ++i) {
        fingerprint[i] = static_cast<std::uint8_t>(digit(digits[2 * i]) << 4 | digit(digits[2 * i + 1]));
    }
    return TlsPeer{fingerprint};
}

std::string TlsPeer::text() const {
    return name() != nullptr ? *name() : "sha256:" + to_hex(*fingerprint());
}

void TlsContext::Free::operator()(ssl_ctx_st* context) const {
    SSL_CTX_free(context);
}

TlsContext::~TlsContext() = default;

void TlsContext::watch(ssl_st* connection, Sighting& sighting) {
    SSL_set_app_data(connection, &sighting);
}

Result<std::shared_ptr<const TlsContext>> TlsContext::load(const std::string& directory) {
    const std::string certificate_path = directory + "/" + kCertificate;
    const std::vector<Certificate> authorities = TRY(read_certificates(directory + "/" + kCa));
    const std::vector<Certificate> chain = TRY(read_certificates(certificate_path));
    const Key key = TRY(read_key(directory + "/" + kKey));
    if (X509_check_private_key(chain.front().get(), key.get()) != 1) {
        ERR_clear_error();
        return fail(Code::invalid, "{} is not for the key in {}/{}; make them together", certificate_path,
                    directory, kKey);
    }
    TRY(check_dates(chain.front().get(), certificate_path));
    for (const Certificate& authority : authorities) {
        TRY(check_dates(authority.get(), directory + "/" + kCa));
    }
    std::unique_ptr<SSL_CTX, Free> context{SSL_CTX_new(TLS_method())};
    if (!context) {
        return fail(Code::io, "OpenSSL could not be started");
    }
    SSL_CTX* const raw = context.get();
    for (const Certificate& authority : authorities) {
        X509_STORE_add_cert(SSL_CTX_get_cert_store(raw), authority.get());
    }
    TRY(check_chain(SSL_CTX_get_cert_store(raw), chain, directory));
    bool set = SSL_CTX_set_min_proto_version(raw, TLS1_3_VERSION) == 1 &&
               SSL_CTX_set_max_proto_version(raw, TLS1_3_VERSION) == 1 &&
               // The fastest first.
               SSL_CTX_set_ciphersuites(
                   raw, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256") == 1 &&
               SSL_CTX_use_certificate(raw, chain.front().get()) == 1 &&
               SSL_CTX_use_PrivateKey(raw, key.get()) == 1;
    for (std::size_t i = 1; i < chain.size(); ++i) {
        set = set && SSL_CTX_add1_chain_cert(raw, chain[i].get()) == 1;
    }
    // A connection is authenticated by its own handshake, never by an earlier one.
    SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(raw, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_ENABLE_KTLS);
    set = set && SSL_CTX_set_num_tickets(raw, 0) == 1;
    SSL_CTX_set_verify(raw, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    SSL_CTX_set_cert_verify_callback(raw, verify_peer, nullptr);
    SSL_CTX_set_max_cert_list(raw, 16 << 10);
    SSL_CTX_set_mode(raw, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (!set) {
        const unsigned long error = ERR_get_error();
        ERR_clear_error();
        const char* why = ERR_reason_error_string(error);
        return fail(Code::invalid, "{} cannot be used for TLS 1.3: {}", directory,
                    why != nullptr ? why : "OpenSSL does not say why");
    }
    return std::shared_ptr<const TlsContext>{new TlsContext{std::move(context)}};
}

}  // namespace migration
