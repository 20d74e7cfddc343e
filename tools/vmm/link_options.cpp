#include "tools/vmm/link_options.hpp"

#include <filesystem>

#include "migration/transport_tls.hpp"
#include "tools/vmm/commands.hpp"

namespace tools {

using vmm::Result;

void add_link_options(CLI::App* app, LinkOptions& options, const std::string& peer_help) {
    // Absolute: it may be another process, with another directory, that opens it.
    CLI::Option* directory = add_value(
        app, "--tls-dir", options.tls_dir,
        [](const std::string& text) -> Result<std::string> {
            if (text.empty()) {
                return vmm::fail(vmm::Code::invalid, "give a directory with ca.pem, cert.pem and key.pem");
            }
            return std::filesystem::absolute(text).lexically_normal().string();
        },
        "Encrypt, and prove who we are, with the ca.pem, cert.pem and key.pem there (docs/tls.md)");
    add_value(
        app, "--tls-peer", options.tls_peer,
        [](const std::string& text) -> Result<std::optional<migration::TlsPeer>> {
            return std::optional{TRY(migration::TlsPeer::parse(text))};
        },
        peer_help)
        ->needs(directory);
    app->add_flag("--insecure", options.insecure,
                  "Allow plain TCP to leave this host: anybody on the way can read and change the guest")
        ->excludes(directory);
}

Result<std::unique_ptr<migration::Connector>> make_connector(const migration::Address& to,
                                                             const LinkOptions& options) {
    if (options.tls_dir.empty()) {
        const auto reach = options.insecure ? migration::Reach::anywhere : migration::Reach::this_host;
        return std::unique_ptr<migration::Connector>{std::make_unique<migration::SocketConnector>(to, reach)};
    }
    auto context = TRY(migration::TlsContext::load(options.tls_dir));
    return std::unique_ptr<migration::Connector>{
        std::make_unique<migration::TlsConnector>(to, std::move(context), options.tls_peer)};
}

}  // namespace tools
