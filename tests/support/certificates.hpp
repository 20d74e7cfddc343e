// Certificates made in the test itself, so that one can be wrong in one way only.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "migration/tls_context.hpp"

namespace tests {

// A certificate authority, and the directories for --tls-dir that it makes.
class Authority {
  public:
    Authority();
    ~Authority();
    Authority(const Authority&) = delete;
    Authority& operator=(const Authority&) = delete;

    struct Wish {
        std::string names = "IP:127.0.0.1";  // subjectAltName
        long begins = -3600;                 // seconds from now
        long ends = 3600;
    };
    // ca.pem, cert.pem and key.pem in `directory`, which is made.
    void make(const std::filesystem::path& directory, const Wish& wish) const;
    void make(const std::filesystem::path& directory) const { make(directory, Wish{}); }

  private:
    struct Parts;
    std::unique_ptr<Parts> parts_;
};

migration::Fingerprint fingerprint_in(const std::filesystem::path& directory);

}  // namespace tests
