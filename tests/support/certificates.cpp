#include "tests/support/certificates.hpp"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include "vmm/base/check.hpp"

namespace tests {

// Not in the anonymous namespace: Authority::Parts has linkage.
struct Free {
    void operator()(X509* object) const { X509_free(object); }
    void operator()(EVP_PKEY* object) const { EVP_PKEY_free(object); }
    void operator()(std::FILE* object) const { (void)std::fclose(object); }
};
using Certificate = std::unique_ptr<X509, Free>;
using Key = std::unique_ptr<EVP_PKEY, Free>;
using File = std::unique_ptr<std::FILE, Free>;

namespace {

void extend(X509* certificate, X509* issuer, int kind, const std::string& value) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str());
    VERIFY(extension != nullptr && X509_add_ext(certificate, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

Certificate begin(EVP_PKEY* key, const char* name, long from, long to) {
    static long serial = 0;
    Certificate made{X509_new()};
    X509_set_version(made.get(), 2);
    ASN1_INTEGER_set(X509_get_serialNumber(made.get()), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(made.get()), from);
    X509_gmtime_adj(X509_getm_notAfter(made.get()), to);
    X509_set_pubkey(made.get(), key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(made.get()), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name), -1, -1, 0);
    return made;
}

File open_file(const std::filesystem::path& path, const char* mode) {
    File file{std::fopen(path.c_str(), mode)};
    VERIFY(file != nullptr);
    return file;
}

}  // namespace

struct Authority::Parts {
    Key key{EVP_EC_gen("P-256")};
    Certificate certificate;
};

Authority::Authority() : parts_(std::make_unique<Parts>()) {
    parts_->certificate = begin(parts_->key.get(), "CA", -7200, 7200);
    X509* const made = parts_->certificate.get();
    X509_set_issuer_name(made, X509_get_subject_name(made));
    extend(made, made, NID_basic_constraints, "critical,CA:TRUE");
    extend(made, made, NID_key_usage, "critical,keyCertSign");
    VERIFY(X509_sign(made, parts_->key.get(), EVP_sha256()) > 0);
}

Authority::~Authority() = default;

void Authority::make(const std::filesystem::path& directory, const Wish& wish) const {
    const Key key{EVP_EC_gen("P-256")};
    const Certificate made = begin(key.get(), "host", wish.begins, wish.ends);
    X509* const issuer = parts_->certificate.get();
    X509_set_issuer_name(made.get(), X509_get_subject_name(issuer));
    extend(made.get(), issuer, NID_subject_alt_name, wish.names);
    VERIFY(X509_sign(made.get(), parts_->key.get(), EVP_sha256()) > 0);
    std::filesystem::create_directories(directory);
    VERIFY(PEM_write_X509(open_file(directory / migration::TlsContext::kCa, "w").get(), issuer) == 1);
    VERIFY(PEM_write_X509(open_file(directory / migration::TlsContext::kCertificate, "w").get(),
                          made.get()) == 1);
    const auto key_path = directory / migration::TlsContext::kKey;
    VERIFY(PEM_write_PrivateKey(open_file(key_path, "w").get(), key.get(), nullptr, nullptr, 0, nullptr,
                                nullptr) == 1);
    VERIFY(::chmod(key_path.c_str(), 0600) == 0);
}

migration::Fingerprint fingerprint_in(const std::filesystem::path& directory) {
    const Certificate read{PEM_read_X509(
        open_file(directory / migration::TlsContext::kCertificate, "r").get(), nullptr, nullptr, nullptr)};
    return *migration::fingerprint_of(read.get());
}

}  // namespace tests
