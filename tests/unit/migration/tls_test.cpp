#include "migration/transport_tls.hpp"

#include <openssl/ssl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <thread>

#include "migration/message_stream.hpp"
#include "migration/tls_preamble.hpp"
#include "tests/support/certificates.hpp"
#include "tests/support/loopback.hpp"

using namespace migration;
using namespace std::chrono_literals;
using tests::Folder;
using tests::Sockets;
using vmm::Code;

namespace {

std::shared_ptr<const TlsContext> context_in(const std::filesystem::path& directory) {
    auto context = TlsContext::load(directory.string());
    INFO((context ? "" : context.error().text()));
    REQUIRE(context);
    return *context;
}

Hello hello() {
    return {{kProtocolVersion}, Purpose::data, {1, 2, 3}, {4, 5, 6}, 7};
}

// What a listener does: reads the preamble, then the handshake.
vmm::Result<std::unique_ptr<TlsTransport>> accept(vmm::UniqueFd socket, const TlsContext& context,
                                                  const std::optional<TlsPeer>& identity = std::nullopt,
                                                  const Deadline& deadline = {}) {
    ConnectedSocket connected = TRY(ConnectedSocket::adopt(std::move(socket), "the client"));
    std::array<std::byte, TlsPreamble::kBytes> raw;
    const iovec part = part_of(raw);
    TRY(connected.transfer({&part, 1}, deadline, ConnectedSocket::Direction::receive));
    const std::optional<TlsPreamble> preamble = TRY(TlsPreamble::decode(raw));
    if (preamble != TlsPreamble{hello().purpose, hello().session}) {
        return vmm::fail(Code::protocol, "another preamble");
    }
    auto transport = TRY(TlsTransport::server(std::move(connected), context, identity));
    TRY(transport->handshake(deadline));
    return transport;
}

// Both ends after an attempt, and what each says of it. A client that the server refuses hears of it when it
// receives.
struct Attempt {
    std::unique_ptr<Transport> client;
    std::unique_ptr<TlsTransport> server;
    vmm::Result<void> client_says;
    vmm::Result<void> server_says;
};

Attempt attempt(const TlsContext& client_context, const TlsPeer& wanted, const TlsContext& server_context,
                const std::optional<TlsPeer>& wanted_client = std::nullopt) {
    Sockets sockets;
    Attempt made;
    std::thread accepting{[&] {
        auto accepted = accept(std::move(sockets.server), server_context, wanted_client);
        if (accepted) {
            made.server = std::move(*accepted);
            const std::byte byte{};
            const iovec part = part_of({&byte, 1});
            made.server_says = made.server->send({&part, 1}, {});
        } else {
            made.server_says = vmm::Failure{accepted.error()};
        }
    }};
    auto client = TlsTransport::client(std::move(*sockets.client), client_context, wanted);
    REQUIRE(client);
    made.client = std::move(*client);
    made.client_says = made.client->introduce(hello(), {});
    if (made.client_says) {
        std::byte byte{};
        const iovec part = part_of({&byte, 1});
        made.client_says = made.client->receive({&part, 1}, {});
    } else {
        made.client->shutdown();
    }
    accepting.join();
    return made;
}

TlsPeer peer(const std::string& text) {
    auto parsed = TlsPeer::parse(text);
    REQUIRE(parsed);
    return *parsed;
}

std::string said(const vmm::Result<void>& result) {
    return result ? "all is well" : result.error().text();
}

}  // namespace

TEST_CASE("over TLS a message with a large payload arrives whole, both ways at once", "[migration]") {
    const Folder folder;
    const tests::Authority authority;
    authority.make(folder.path);
    const auto context = context_in(folder.path);
    Attempt pair = attempt(*context, peer("127.0.0.1"), *context);
    INFO(said(pair.client_says) << said(pair.server_says));
    REQUIRE((pair.client_says && pair.server_says));
    const LinkSecurity security = pair.client->security();
    CHECK_FALSE(security.exposed);
    REQUIRE(security.tls);
    CHECK(security.tls->version == "TLSv1.3");
    MessageStream client{std::move(pair.client)};
    MessageStream server{std::move(pair.server)};
    vmm::Bytes payload(Probe::kMaxPayload);
    for (std::size_t i = 0; i < payload.size(); ++i) {
        payload[i] = static_cast<std::byte>(i * 7 + i / 4096);
    }
    constexpr int kFrames = 8;
    std::atomic<int> failures = 0;
    const auto send = [&](MessageStream& stream) {
        // Pages in pieces of every kind: a record ends where it likes.
        const std::span<const std::byte> all{payload};
        const iovec parts[] = {part_of(all.first(4096)), part_of(all.subspan(4096, 100)),
                               part_of(all.subspan(4196, 200'000)), part_of(all.subspan(204'196))};
        for (int i = 0; i < kFrames; ++i) {
            failures += stream.send(Probe{false}, parts) ? 0 : 1;
        }
    };
    const auto receive = [&](MessageStream& stream) {
        for (int i = 0; i < kFrames; ++i) {
            const auto incoming = stream.receive(std::size_t{2} << 20);
            vmm::Bytes got(payload.size());
            const iovec parts[] = {part_of(std::span{got}.first(1000)),
                                   part_of(std::span{got}.subspan(1000))};
            failures += incoming && stream.receive_payload(parts) && got == payload ? 0 : 1;
        }
    };
    std::vector<std::thread> threads;
    threads.emplace_back(send, std::ref(client));
    threads.emplace_back(receive, std::ref(client));
    threads.emplace_back(send, std::ref(server));
    receive(server);
    for (std::thread& thread : threads) {
        thread.join();
    }
    CHECK(failures == 0);
}

TEST_CASE("a peer with a certificate of another CA is turned away, on either side", "[migration]") {
    const Folder folder;
    const tests::Authority ours;
    const tests::Authority others;
    ours.make(folder.path / "ours");
    others.make(folder.path / "others");
    const auto good = context_in(folder.path / "ours");
    const auto foreign = context_in(folder.path / "others");
    Attempt refused_by_client = attempt(*good, peer("127.0.0.1"), *foreign);
    REQUIRE_FALSE(refused_by_client.client_says);
    CHECK(refused_by_client.client_says.error().code() == Code::refused);
    CHECK_THAT(said(refused_by_client.client_says), Catch::Contains("certificates of one CA"));
    CHECK_THAT(said(refused_by_client.server_says), Catch::Contains("TLS alert"));
}

TEST_CASE("a listener demands a certificate, and of its own CA", "[migration]") {
    const Folder folder;
    const tests::Authority ours;
    const tests::Authority others;
    ours.make(folder.path / "server");
    others.make(folder.path / "client");
    const auto server = context_in(folder.path / "server");
    const auto client = context_in(folder.path / "client");
    // This client takes any server: what is tried is the server's own judgement.
    SSL_CTX_set_verify(client->get(), SSL_VERIFY_NONE, nullptr);
    SECTION("of another CA") {
    }
    SECTION("none") {
        SSL_CTX_use_certificate(client->get(), nullptr);
        const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> bare{SSL_CTX_new(TLS_method()), SSL_CTX_free};
        Sockets sockets;
        vmm::Result<std::unique_ptr<TlsTransport>> accepted = vmm::fail(Code::io, "never tried");
        std::thread accepting{[&] { accepted = accept(std::move(sockets.server), *server); }};
        const auto preamble = TlsPreamble{hello().purpose, hello().session}.encode();
        const iovec part = part_of(preamble);
        REQUIRE(sockets.client->transfer({&part, 1}, {}, ConnectedSocket::Direction::send));
        const std::unique_ptr<SSL, decltype(&SSL_free)> ssl{SSL_new(bare.get()), SSL_free};
        SSL_set_fd(ssl.get(), sockets.client->fd());
        SSL_set_connect_state(ssl.get());
        (void)sockets.client->drive({}, [&]() -> vmm::Result<ConnectedSocket::Step> {
            const int result = SSL_do_handshake(ssl.get());
            return result == 1 || SSL_get_error(ssl.get(), result) != SSL_ERROR_WANT_READ
                       ? ConnectedSocket::Step::done
                       : ConnectedSocket::Step::readable;
        });
        accepting.join();
        REQUIRE_FALSE(accepted);
        CHECK_THAT(accepted.error().text(), Catch::Contains("has shown no certificate"));
        return;
    }
    Attempt made = attempt(*client, peer("127.0.0.1"), *server);
    REQUIRE_FALSE(made.server_says);
    CHECK_THAT(said(made.server_says), Catch::Contains("certificates of one CA"));
    REQUIRE_FALSE(made.client_says);
    CHECK_THAT(said(made.client_says), Catch::Contains("does not accept our certificate"));
}

TEST_CASE("a certificate must be for who was asked for: by name, by address, by fingerprint", "[migration]") {
    const Folder folder;
    const tests::Authority authority;
    authority.make(folder.path, {"DNS:host-b,DNS:*.example.org,IP:10.0.0.2,IP:::1"});
    const auto context = context_in(folder.path);
    const std::string right = TlsPeer::parse("sha256:" + to_hex(tests::fingerprint_in(folder.path)))->text();
    std::string wrong = right;
    wrong.back() = wrong.back() == '0' ? '1' : '0';
    for (const std::string& good : {std::string{"host-b"}, std::string{"a.example.org"},
                                    std::string{"10.0.0.2"}, std::string{"::1"}, right}) {
        INFO(good);
        CHECK(attempt(*context, peer(good), *context).client_says);
        CHECK(attempt(*context, peer(right), *context, peer(good)).server_says);
    }
    // "host" is the subject's common name: that does not count.
    for (const std::string& bad : {std::string{"host-a"}, std::string{"host"}, std::string{"b.a.example.org"},
                                   std::string{"10.0.0.3"}, std::string{"127.0.0.1"}, wrong}) {
        INFO(bad);
        const Attempt by_client = attempt(*context, peer(bad), *context);
        REQUIRE_FALSE(by_client.client_says);
        CHECK(by_client.client_says.error().code() == Code::refused);
        CHECK_THAT(said(by_client.client_says), Catch::Contains("--tls-peer") && Catch::Contains(right));
        CHECK_FALSE(by_client.server_says);
        const Attempt by_server = attempt(*context, peer(right), *context, peer(bad));
        REQUIRE_FALSE(by_server.server_says);
        CHECK_THAT(said(by_server.server_says), Catch::Contains("--tls-peer"));
        CHECK_FALSE(by_server.client_says);
    }
}

TEST_CASE("a certificate that a peer presents after its time is refused", "[migration]") {
    const Folder folder;
    const tests::Authority authority;
    authority.make(folder.path / "good");
    authority.make(folder.path / "late");
    const auto good = context_in(folder.path / "good");
    const auto late = context_in(folder.path / "late");
    // It was good when it was loaded; the peer looks at it two hours later.
    X509_VERIFY_PARAM_set_time(SSL_CTX_get0_param(good->get()), ::time(nullptr) + 7000);
    const Attempt made = attempt(*good, peer("127.0.0.1"), *late);
    REQUIRE_FALSE(made.client_says);
    CHECK_THAT(said(made.client_says), Catch::Contains("expired"));
}

TEST_CASE("TLS 1.2 is not spoken", "[migration]") {
    const Folder folder;
    const tests::Authority authority;
    authority.make(folder.path / "old");
    authority.make(folder.path / "new");
    const auto old = context_in(folder.path / "old");
    const auto current = context_in(folder.path / "new");
    SSL_CTX_set_min_proto_version(old->get(), TLS1_2_VERSION);
    SSL_CTX_set_max_proto_version(old->get(), TLS1_2_VERSION);
    const Attempt made = attempt(*old, peer("127.0.0.1"), *current);
    REQUIRE_FALSE(made.client_says);
    REQUIRE_FALSE(made.server_says);
    CHECK_THAT(said(made.server_says), Catch::Contains("does not offer TLS 1.3"));
    CHECK_FALSE(attempt(*current, peer("127.0.0.1"), *old).client_says);
}

TEST_CASE("a peer that does not speak TLS is told apart from one that breaks it", "[migration]") {
    const Folder folder;
    const tests::Authority authority;
    authority.make(folder.path);
    const auto context = context_in(folder.path);
    Sockets sockets;
    auto client = TlsTransport::client(std::move(*sockets.client), *context, peer("127.0.0.1"));
    REQUIRE(client);
    const auto answers = [&](std::span<const std::byte> bytes) {
        REQUIRE(::send(sockets.server.get(), bytes.data(), bytes.size(), 0) ==
                static_cast<ssize_t>(bytes.size()));
        const auto done = (*client)->introduce(hello(), {});
        REQUIRE_FALSE(done);
        return done.error();
    };
    SECTION("a listener without TLS says so") {
        const auto error =
            answers(encode_frame(HelloReply{HelloStatus::unknown_session, 2, "no --tls-dir here"}));
        CHECK(error.code() == Code::refused);
        CHECK_THAT(error.text(), Catch::Contains("no --tls-dir here"));
    }
    SECTION("something else altogether") {
        const std::string_view http = "HTTP/1.1 400 Bad Request\r\n\r\n";
        CHECK(answers(std::as_bytes(std::span{http})).code() == Code::foreign);
    }
    SECTION("a frame that is none") {
        const std::string_view text = "GWM1 but then something else, long enough for a header";
        CHECK(answers(std::as_bytes(std::span{text})).code() == Code::protocol);
    }
    SECTION("it closes") {
        sockets.server.reset();
        const auto done = (*client)->introduce(hello(), {});
        REQUIRE_FALSE(done);
        CHECK(done.error().code() == Code::closed);
        CHECK_THAT(done.error().text(), Catch::Contains("--tls-dir"));
        // Whoever gives up says so, whatever became of the connection: an error, no more.
        std::byte byte{};
        const iovec part{&byte, 1};
        CHECK_FALSE((*client)->send({&part, 1}, {}));
        CHECK_FALSE((*client)->receive({&part, 1}, {}));
    }
}

TEST_CASE("a handshake that stalls ends at its deadline, on either side", "[migration]") {
    const Folder folder;
    const tests::Authority authority;
    authority.make(folder.path);
    const auto context = context_in(folder.path);
    Sockets sockets;
    SECTION("the server never answers") {
        auto client = TlsTransport::client(std::move(*sockets.client), *context, peer("127.0.0.1"));
        REQUIRE(client);
        const auto done = (*client)->introduce(hello(), Deadline::until(vmm::real_clock().now() + 20ms));
        REQUIRE_FALSE(done);
        CHECK(done.error().code() == Code::timeout);
    }
    SECTION("the client never begins") {
        const auto preamble = TlsPreamble{hello().purpose, hello().session}.encode();
        const iovec part = part_of(preamble);
        REQUIRE(sockets.client->transfer({&part, 1}, {}, ConnectedSocket::Direction::send));
        const auto done = accept(std::move(sockets.server), *context, std::nullopt,
                                 Deadline::until(vmm::real_clock().now() + 20ms));
        REQUIRE_FALSE(done);
        CHECK(done.error().code() == Code::timeout);
    }
}

TEST_CASE("a TLS connection that is cut inside a frame is closed, never a shorter frame", "[migration]") {
    const Folder folder;
    const tests::Authority authority;
    authority.make(folder.path);
    const auto context = context_in(folder.path);
    Attempt pair = attempt(*context, peer("127.0.0.1"), *context);
    REQUIRE((pair.client_says && pair.server_says));
    const vmm::Bytes frame = encode_frame(hello());
    const iovec most = part_of(std::span{frame}.first(frame.size() - 1));
    REQUIRE(pair.server->send({&most, 1}, {}));
    pair.server.reset();
    MessageStream client{std::move(pair.client)};
    const auto received = client.receive(4096);
    REQUIRE_FALSE(received);
    CHECK(received.error().code() == Code::closed);
}

TEST_CASE("TLS keeps to deadlines, and a shutdown or an abort ends every wait", "[migration]") {
    const Folder folder;
    const tests::Authority authority;
    authority.make(folder.path);
    const auto context = context_in(folder.path);
    Attempt pair = attempt(*context, peer("127.0.0.1"), *context);
    REQUIRE((pair.client_says && pair.server_says));
    std::byte byte{};
    const iovec part{&byte, 1};
    SECTION("deadline") {
        const auto waited = pair.client->receive({&part, 1}, Deadline::until(vmm::real_clock().now() + 20ms));
        REQUIRE_FALSE(waited);
        CHECK(waited.error().code() == Code::timeout);
    }
    SECTION("a peer that takes nothing") {
        const vmm::Bytes much(std::size_t{64} << 20);
        const iovec all = part_of(much);
        const auto sent = pair.client->send({&all, 1}, Deadline::until(vmm::real_clock().now() + 200ms));
        REQUIRE_FALSE(sent);
        CHECK(sent.error().code() == Code::timeout);
    }
    SECTION("shutdown from another thread") {
        std::thread other{[&] { pair.client->shutdown(); }};
        const auto waited = pair.client->receive({&part, 1}, Deadline::never());
        other.join();
        REQUIRE_FALSE(waited);
        CHECK(waited.error().code() == Code::closed);
    }
    SECTION("abort: what has not left yet never does") {
        // More than the peer's host takes without being read.
        const vmm::Bytes much(std::size_t{64} << 20);
        const iovec all = part_of(much);
        CHECK_FALSE(pair.client->send({&all, 1}, Deadline::until(vmm::real_clock().now() + 200ms)));
        pair.client->abort();
        const auto waited = pair.client->receive({&part, 1}, {});
        REQUIRE_FALSE(waited);
        CHECK(waited.error().code() == Code::closed);
        vmm::Bytes got(much.size());
        const iovec into = part_of(got);
        const auto received = pair.server->receive({&into, 1}, {});
        REQUIRE_FALSE(received);
        CHECK(received.error().code() == Code::closed);
    }
}

TEST_CASE("what is wrong with a --tls-dir is said when it is read, in one line", "[migration]") {
    const Folder folder;
    const tests::Authority authority;
    const tests::Authority another;
    const auto& path = folder.path;
    authority.make(path);
    const auto complaint = [&] {
        const auto context = TlsContext::load(path.string());
        REQUIRE_FALSE(context);
        CHECK(context.error().code() == Code::invalid);
        CHECK(context.error().text().find('\n') == std::string::npos);
        return context.error().text();
    };
    CHECK(TlsContext::load(path.string()));
    SECTION("files that are missing, or are none") {
        for (const char* name : {TlsContext::kCa, TlsContext::kCertificate, TlsContext::kKey}) {
            authority.make(path);
            std::filesystem::remove(path / name);
            CHECK_THAT(complaint(), Catch::Contains(name));
            std::ofstream{path / name} << "nothing of use\n";
            std::filesystem::permissions(path / name, std::filesystem::perms::owner_all);
            CHECK_THAT(complaint(), Catch::Contains(name));
            std::filesystem::remove(path / name);
            REQUIRE(::mkfifo((path / name).c_str(), 0600) == 0);
            CHECK_THAT(complaint(), Catch::Contains(name));
            std::filesystem::remove(path / name);
        }
    }
    SECTION("a key that others can read") {
        REQUIRE(::chmod((path / TlsContext::kKey).c_str(), 0640) == 0);
        CHECK_THAT(complaint(), Catch::Contains("chmod 600"));
    }
    SECTION("another's key") {
        authority.make(path / "other");
        std::filesystem::copy_file(path / "other" / TlsContext::kKey, path / TlsContext::kKey,
                                   std::filesystem::copy_options::overwrite_existing);
        CHECK_THAT(complaint(), Catch::Contains("is not for the key"));
    }
    SECTION("another CA") {
        another.make(path / "other");
        std::filesystem::copy_file(path / "other" / TlsContext::kCa, path / TlsContext::kCa,
                                   std::filesystem::copy_options::overwrite_existing);
        CHECK_THAT(complaint(), Catch::Contains("is not from the CA"));
    }
    SECTION("expired, and not valid yet") {
        authority.make(path, {"DNS:a", -3600, -60});
        CHECK_THAT(complaint(), Catch::Contains("expired"));
        authority.make(path, {"DNS:a", 60, 3600});
        CHECK_THAT(complaint(), Catch::Contains("not valid yet"));
    }
}

TEST_CASE("a damaged preamble opens nothing", "[migration]") {
    const auto good = TlsPreamble{hello().purpose, hello().session}.encode();
    REQUIRE(TlsPreamble::decode(good));
    CHECK(TlsPreamble::decode(good)->value() == TlsPreamble{hello().purpose, hello().session});
    for (std::size_t at = 0; at < good.size(); ++at) {
        CAPTURE(at);
        auto damaged = good;
        damaged[at] ^= std::byte{0x40};
        const auto decoded = TlsPreamble::decode(damaged);
        CHECK((!decoded || !decoded->has_value()));
    }
}
