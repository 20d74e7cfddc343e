// How the connections of migrations are protected, as the command line and requests say it.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>

#include "migration/tls_context.hpp"
#include "migration/transport_socket.hpp"

namespace tools {

struct LinkOptions {
    std::string tls_dir;  // absolute; empty: plain TCP
    std::optional<migration::TlsPeer> tls_peer;
    bool insecure = false;  // plain TCP to other hosts too
};

// `peer_help`: who --tls-peer is here.
void add_link_options(CLI::App* app, LinkOptions& options, const std::string& peer_help);

// Reads the certificates.
vmm::Result<std::unique_ptr<migration::Connector>> make_connector(const migration::Address& to,
                                                                  const LinkOptions& options);

}  // namespace tools
