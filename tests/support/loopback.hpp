// A folder for certificates, and both ends of a TCP connection, for tests that are client and server at once.
#pragma once

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <memory>
#include <string>

#include "migration/connected_socket.hpp"
#include "migration/transport_socket.hpp"

namespace tests {

struct Folder {
    Folder() {
        std::string pattern = (std::filesystem::temp_directory_path() / "godwit-tls-XXXXXX").string();
        REQUIRE(::mkdtemp(pattern.data()) != nullptr);
        path = pattern;
        ::signal(SIGPIPE, SIG_IGN);  // as vmm does
    }
    ~Folder() { std::filesystem::remove_all(path); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;

    std::filesystem::path path;
};

struct Sockets {
    Sockets() {
        auto listener = migration::Listener::listen({"127.0.0.1", "0"});
        REQUIRE(listener);
        auto connected = migration::connect_to(listener->address, migration::Reach::this_host, {});
        REQUIRE(connected);
        client = std::make_unique<migration::ConnectedSocket>(std::move(*connected));
        pollfd entry{listener->socket.get(), POLLIN, 0};
        REQUIRE(::poll(&entry, 1, 10'000) == 1);
        server = vmm::UniqueFd{::accept4(listener->socket.get(), nullptr, nullptr, SOCK_CLOEXEC)};
        REQUIRE(server);
    }

    std::unique_ptr<migration::ConnectedSocket> client;
    vmm::UniqueFd server;
};

}  // namespace tests
