// Connections that say which session they belong to, and have yet to prove who they are.
#include "tools/vmm/tls_admission.hpp"

#include <openssl/ssl.h>

#include <algorithm>
#include <array>
#include <future>
#include <mutex>

#include "migration/tls_preamble.hpp"
#include "tests/support/certificates.hpp"
#include "tests/support/loopback.hpp"

using namespace migration;
using namespace std::chrono_literals;
using tests::Folder;
using tests::Sockets;
using tools::TlsAdmission;

namespace {

const SessionId kSession{1, 2, 3};
constexpr vmm::Duration kForEver = std::chrono::hours{1};  // what ends before that was ended

// Both ends have certificates of one CA; `foreign` is of another, and takes any listener.
struct Certificates {
    Certificates() {
        ours.make(folder.path / "ours");
        others.make(folder.path / "others");
        good = load("ours");
        foreign = load("others");
        SSL_CTX_set_verify(foreign->get(), SSL_VERIFY_NONE, nullptr);
        fingerprint = "sha256:" + to_hex(tests::fingerprint_in(folder.path / "ours"));
    }
    std::shared_ptr<const TlsContext> load(const char* name) const {
        auto context = TlsContext::load((folder.path / name).string());
        REQUIRE(context);
        return *context;
    }

    const Folder folder;
    const tests::Authority ours;
    const tests::Authority others;
    std::shared_ptr<const TlsContext> good;
    std::shared_ptr<const TlsContext> foreign;
    std::string fingerprint;
};

TlsPeer peer(const std::string& text) {
    auto parsed = TlsPeer::parse(text);
    REQUIRE(parsed);
    return *parsed;
}

Hello hello(Purpose purpose, const SessionId& session = kSession) {
    return {{kProtocolVersion}, purpose, session, {4, 5, 6}, 7};
}

// A session's admission. Who gets past it is answered, as a session answers.
class Door {
  public:
    explicit Door(const Certificates& certificates, std::optional<TlsPeer> identity = std::nullopt,
                  vmm::Duration limit = kForEver)
        : admission_(
              *certificates.good, std::move(identity), kSession,
              [this](const Hello& said, std::unique_ptr<Transport> transport) {
                  {
                      const std::lock_guard lock{mutex_};
                      admitted_.push_back(said.purpose);
                  }
                  MessageStream stream{std::move(transport)};
                  (void)stream.send(HelloReply{HelloStatus::ok, kProtocolVersion, "come in"});
              },
              limit) {}

    void take(vmm::UniqueFd socket) { admission_.take(std::move(socket), "the client"); }

    // What somebody with these certificates, who says `said`, is told.
    vmm::Result<HelloReply> knock(const TlsContext& context, const Hello& said) {
        Sockets sockets;
        auto answer = std::async(std::launch::async, [&]() -> vmm::Result<HelloReply> {
            MessageStream stream{
                TRY(TlsTransport::client(std::move(*sockets.client), context, peer("127.0.0.1")))};
            TRY(stream.introduce(said, {}));
            TRY(stream.send(said));
            return stream.expect<HelloReply>();
        });
        // The listener has read that, and knows the session by it.
        std::array<std::byte, TlsPreamble::kBytes> preamble;
        REQUIRE(::recv(sockets.server.get(), preamble.data(), preamble.size(), MSG_WAITALL) ==
                static_cast<ssize_t>(preamble.size()));
        take(std::move(sockets.server));
        return answer.get();
    }

    // Once whoever knocked has its answer.
    std::vector<Purpose> admitted() {
        const std::lock_guard lock{mutex_};
        return admitted_;
    }

  private:
    std::mutex mutex_;
    std::vector<Purpose> admitted_;
    TlsAdmission admission_;
};

std::string said(const vmm::Result<HelloReply>& result) {
    return result ? result->text : result.error().text();
}

// Waits for the other side to close.
bool gets_closed(const ConnectedSocket& socket) {
    std::byte byte{};
    return ::poll(std::array{pollfd{socket.fd(), POLLIN, 0}}.data(), 1, 10'000) == 1 &&
           ::recv(socket.fd(), &byte, 1, MSG_DONTWAIT) <= 0;
}

bool is_open(const ConnectedSocket& socket) {
    return ::poll(std::array{pollfd{socket.fd(), POLLIN | POLLRDHUP, 0}}.data(), 1, 0) == 0;
}

}  // namespace

TEST_CASE("a data connection and one that resumes are admitted to their session", "[tools]") {
    const Certificates certificates;
    const auto purpose = GENERATE(Purpose::data, Purpose::resume);
    const std::array<std::optional<TlsPeer>, 3> identities{std::nullopt, peer("127.0.0.1"),
                                                           peer(certificates.fingerprint)};
    const auto& identity = identities.at(GENERATE(0U, 1U, 2U));
    Door door{certificates, identity};
    CHECK(said(door.knock(*certificates.good, hello(purpose))) == "come in");
    CHECK(door.admitted() == std::vector{purpose});
}

TEST_CASE("a data connection with a certificate of another CA is not admitted", "[tools]") {
    const Certificates certificates;
    const auto purpose = GENERATE(Purpose::data, Purpose::resume);
    Door door{certificates};
    CHECK_THAT(said(door.knock(*certificates.foreign, hello(purpose))),
               Catch::Contains("does not accept our certificate"));
    CHECK(door.admitted().empty());
}

TEST_CASE("a data connection of another peer than --tls-peer names is not admitted", "[tools]") {
    const Certificates certificates;
    const auto purpose = GENERATE(Purpose::data, Purpose::resume);
    std::string other = certificates.fingerprint;
    other.back() = other.back() == '0' ? '1' : '0';
    const std::array<std::string, 3> others{other, "elsewhere", "127.0.0.2"};
    const std::string& wanted = others.at(GENERATE(0U, 1U, 2U));
    INFO(wanted);
    Door door{certificates, peer(wanted)};
    CHECK_THAT(said(door.knock(*certificates.good, hello(purpose))),
               Catch::Contains("does not accept our certificate"));
    CHECK(door.admitted().empty());
}

TEST_CASE("a connection of another session, or for another purpose, is not admitted", "[tools]") {
    const Certificates certificates;
    const auto wrong = GENERATE(hello(Purpose::data, {1, 2, 4}), hello(Purpose::resume, {}),
                                hello(Purpose::control), hello(Purpose::preflight), hello(Purpose::query));
    Door door{certificates};
    const auto answer = door.knock(*certificates.good, wrong);
    REQUIRE(!answer);
    CHECK(answer.error().code() == vmm::Code::closed);
    CHECK(door.admitted().empty());
}

TEST_CASE("of more than 16 that prove nothing the oldest goes, and who means it is admitted", "[tools]") {
    const Certificates certificates;
    Door door{certificates};
    std::vector<std::unique_ptr<ConnectedSocket>> silent;
    const auto add = [&] {
        Sockets sockets;
        silent.push_back(std::move(sockets.client));
        door.take(std::move(sockets.server));
    };
    const auto all_open_but = [&](std::size_t first) {
        return std::all_of(silent.begin() + static_cast<std::ptrdiff_t>(first), silent.end(),
                           [](const auto& socket) { return is_open(*socket); });
    };
    while (silent.size() < TlsAdmission::kMaxPending) {
        add();
    }
    CHECK(all_open_but(0));
    add();
    CHECK(gets_closed(*silent[0]));
    CHECK(all_open_but(1));
    CHECK(said(door.knock(*certificates.good, hello(Purpose::data))) == "come in");
    CHECK(gets_closed(*silent[1]));
    CHECK(all_open_but(2));
}

TEST_CASE("who has not said Hello in time is dropped, however far it came", "[tools]") {
    const Certificates certificates;
    Door door{certificates, std::nullopt, 50ms};
    Sockets sockets;
    SECTION("nothing") {
        door.take(std::move(sockets.server));
    }
    SECTION("the beginning of a handshake") {
        constexpr std::string_view record = "\x16\x03\x01\x02";
        REQUIRE(::send(sockets.client->fd(), record.data(), record.size(), 0) ==
                static_cast<ssize_t>(record.size()));
        door.take(std::move(sockets.server));
    }
    SECTION("a handshake") {
        auto client = TlsTransport::client(std::move(*sockets.client), *certificates.good, peer("127.0.0.1"));
        REQUIRE(client);
        auto closed = std::async(std::launch::async, [&] {
            std::byte byte{};
            const iovec part{&byte, 1};
            return !(*client)->introduce(hello(Purpose::data), Deadline::never()) ||
                   !(*client)->receive({&part, 1}, Deadline::never());
        });
        std::array<std::byte, TlsPreamble::kBytes> preamble;
        REQUIRE(::recv(sockets.server.get(), preamble.data(), preamble.size(), MSG_WAITALL) ==
                static_cast<ssize_t>(preamble.size()));
        door.take(std::move(sockets.server));
        CHECK(closed.get());
        CHECK(door.admitted().empty());
        return;
    }
    CHECK(gets_closed(*sockets.client));
    CHECK(door.admitted().empty());
}

TEST_CASE("a session that ends does not wait for those that are not admitted yet", "[tools]") {
    const Certificates certificates;
    Sockets sockets;
    {
        Door door{certificates};
        door.take(std::move(sockets.server));
    }
    CHECK(gets_closed(*sockets.client));
}
