#include <catch2/catch.hpp>

#include "migration/tls_context.hpp"

using migration::TlsPeer;

TEST_CASE("peers of the command line: what is one and what is not", "[migration]") {
    const std::string hex(64, 'a');
    std::string with_colons;
    for (int i = 0; i < 32; ++i) {
        with_colons += i == 0 ? "AA" : ":AA";
    }
    REQUIRE(TlsPeer::parse("sha256:" + hex));
    CHECK(TlsPeer::parse("sha256:" + hex)->fingerprint() != nullptr);
    CHECK(TlsPeer::parse("sha256:" + with_colons)->text() == "sha256:" + hex);
    CHECK(*TlsPeer::parse("host.example.org")->name() == "host.example.org");
    for (const std::string& bad :
         {std::string{}, std::string{"sha256:"}, "sha256:" + hex.substr(1), "sha256:g" + hex.substr(1),
          std::string{"two words"}, std::string(300, 'a')}) {
        INFO(bad);
        CHECK_FALSE(TlsPeer::parse(bad));
    }
}
