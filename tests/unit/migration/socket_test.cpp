#include <poll.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <thread>

#include "migration/message_stream.hpp"
#include "migration/transport_socket.hpp"

using namespace migration;
using namespace std::chrono_literals;

namespace {

struct Connected {
    std::unique_ptr<Transport> client;
    std::unique_ptr<Transport> server;
};

Connected connect_pair() {
    auto listener = Listener::listen({"127.0.0.1", "0"});
    REQUIRE(listener);
    SocketConnector connector{listener->address};
    auto client = connector.connect({});
    REQUIRE(client);
    pollfd entry{listener->socket.get(), POLLIN, 0};
    REQUIRE(::poll(&entry, 1, 10'000) == 1);
    vmm::UniqueFd accepted{::accept4(listener->socket.get(), nullptr, nullptr, SOCK_CLOEXEC)};
    REQUIRE(accepted);
    auto server = SocketTransport::adopt(std::move(accepted), "client");
    REQUIRE(server);
    return {std::move(*client), std::move(*server)};
}

}  // namespace

TEST_CASE("addresses: what is one and what is not", "[migration]") {
    const auto good = Address::parse("tcp:127.0.0.1:7000");
    REQUIRE(good);
    CHECK(good->host == "127.0.0.1");
    CHECK(good->port == "7000");
    const auto ipv6 = Address::parse("tcp:[::1]:7000");
    REQUIRE(ipv6);
    CHECK(ipv6->host == "::1");
    CHECK(ipv6->text() == "tcp:[::1]:7000");
    for (const char* bad :
         {"", "tcp:", "tcp::", "tcp:host", "tcp:host:", "tcp::7000", "udp:host:7000", "host:7000",
          "tcp:host:70000", "tcp:host:-1", "tcp:host:7x", "tcp:host:999999999999999999999"}) {
        INFO(bad);
        CHECK(!Address::parse(bad));
    }
}

TEST_CASE("a message with a large payload crosses a socket whole", "[migration]") {
    Connected pair = connect_pair();
    MessageStream client{std::move(pair.client)};
    MessageStream server{std::move(pair.server)};
    vmm::Bytes payload(Probe::kMaxPayload);
    for (std::size_t i = 0; i < payload.size(); ++i) {
        payload[i] = static_cast<std::byte>(i * 7);
    }
    // Catch2's assertions are not for other threads.
    bool all_sent = true;
    std::thread sender{[&] {
        const iovec part = part_of(payload);
        for (int i = 0; i < 8; ++i) {
            all_sent = client.send(Probe{i == 7}, {&part, 1}).has_value() && all_sent;
        }
    }};
    for (int i = 0; i < 8; ++i) {
        auto incoming = server.receive(std::size_t{2} << 20);
        REQUIRE(incoming);
        REQUIRE(incoming->payload_bytes == payload.size());
        vmm::Bytes got(payload.size());
        const iovec halves[] = {part_of(std::span{got}.first(1000)), part_of(std::span{got}.subspan(1000))};
        REQUIRE(server.receive_payload(halves));
        REQUIRE(got == payload);
    }
    sender.join();
    CHECK(all_sent);
}

TEST_CASE("a silent peer is a timeout, a closed one is closed, a shutdown wakes the waiter", "[migration]") {
    Connected pair = connect_pair();
    std::byte byte{};
    const iovec part{&byte, 1};
    SECTION("deadline") {
        const auto waited = pair.client->receive({&part, 1}, Deadline::until(vmm::real_clock().now() + 20ms));
        REQUIRE(!waited);
        CHECK(waited.error().code() == vmm::Code::timeout);
    }
    SECTION("no progress") {
        const auto waited = pair.client->receive({&part, 1}, Deadline{20ms, std::nullopt});
        REQUIRE(!waited);
        CHECK(waited.error().code() == vmm::Code::timeout);
    }
    SECTION("closed") {
        pair.server.reset();
        const auto waited = pair.client->receive({&part, 1}, {});
        REQUIRE(!waited);
        CHECK(waited.error().code() == vmm::Code::closed);
    }
    SECTION("shutdown from another thread") {
        std::thread other{[&] { pair.client->shutdown(); }};
        const auto waited = pair.client->receive({&part, 1}, Deadline::never());
        other.join();
        REQUIRE(!waited);
        CHECK(waited.error().code() == vmm::Code::closed);
        CHECK(!pair.client->send({&part, 1}, {}));
    }
}

TEST_CASE("nobody at an address is an error that says what to do", "[migration]") {
    auto listener = Listener::listen({"127.0.0.1", "0"});
    REQUIRE(listener);
    const Address address = listener->address;
    listener->socket.reset();
    SocketConnector connector{address};
    const auto nobody = connector.connect({});
    REQUIRE(!nobody);
    CHECK_THAT(nobody.error().text(), Catch::Contains("vmm receive --listen"));
}

TEST_CASE("somebody who does not speak the protocol is told apart", "[migration]") {
    Connected pair = connect_pair();
    const std::string greeting = "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n";
    const iovec part = part_of(std::as_bytes(std::span{greeting}));
    REQUIRE(pair.server->send({&part, 1}, {}));
    MessageStream client{std::move(pair.client)};
    const auto reply = client.expect<HelloReply>();
    REQUIRE(!reply);
    CHECK(reply.error().code() == vmm::Code::foreign);
}

TEST_CASE("plain connections stay on this host unless the user says otherwise", "[migration]") {
    SocketConnector elsewhere{{"192.0.2.1", "7000"}};
    const auto refused = elsewhere.connect({});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code() == vmm::Code::refused);
    CHECK_THAT(refused.error().text(), Catch::Contains("--tls-dir") && Catch::Contains("--insecure"));
    SocketConnector allowed{{"192.0.2.1", "7000"}, Reach::anywhere};
    const auto tried = allowed.connect(Deadline::until(vmm::real_clock().now() + 1ms));
    REQUIRE_FALSE(tried);
    CHECK(tried.error().code() != vmm::Code::refused);
}
