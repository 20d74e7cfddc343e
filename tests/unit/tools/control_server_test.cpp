#include "tools/vmm/control_server.hpp"

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <thread>

#include "tools/vmm/control_client.hpp"
#include "tools/vmm/control_protocol.hpp"

using namespace tools;
using namespace std::chrono_literals;
using nlohmann::json;

namespace {

struct SocketFolder {
    SocketFolder() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
    ~SocketFolder() {
        ::unlink(socket().c_str());
        ::rmdir(path.c_str());
    }
    std::string socket() const { return path + "/s"; }
    std::string path = "/tmp/godwit-XXXXXX";
};

// Answers each line with `ok` and the line; "flood" with more than may wait. To "again" it has `feeder` say
// "again" at once.
struct Serving {
    Serving() {
        loop = std::move(*vmm::EventLoop::create());
        auto made = ControlServer::listen(*loop, folder.socket(),
                                          {[this](ControlServer::Client client, const std::string& line) {
                                               if (line == "flood") {
                                                   for (int i = 0; i < 80; ++i) {
                                                       server->send(client, std::string(65536, 'x'));
                                                   }
                                                   return;
                                               }
                                               if (line == "again") {
                                                   (void)::send(feeder.get(), "again\n", 6, MSG_NOSIGNAL);
                                                   return;
                                               }
                                               server->send(client, ok_line(nullptr, {{"line", line}}));
                                           },
                                           [](ControlServer::Client) {}});
        REQUIRE(made.has_value());
        server = std::move(*made);
        thread = std::thread{[this] { (void)loop->run(); }};
    }
    ~Serving() {
        loop->stop();
        thread.join();
    }

    SocketFolder folder;
    vmm::UniqueFd feeder;
    std::unique_ptr<vmm::EventLoop> loop;
    std::unique_ptr<ControlServer> server;
    std::thread thread;
};

void write_raw(const vmm::UniqueFd& fd, const std::string& text) {
    REQUIRE(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size()));
}

}  // namespace

TEST_CASE("a client's requests are answered in lines", "[tools]") {
    Serving serving;
    auto client = ControlClient::connect(serving.folder.socket());
    REQUIRE(client.has_value());
    const auto reply = client->call({{"a", 1}}, 10s);
    REQUIRE(reply.has_value());
    CHECK(field(*reply, "line") == R"({"a":1})");
    CHECK(field(*client->call({{"b", 2}}, 10s), "line") == R"({"b":2})");
}

TEST_CASE("the control socket is for its owner only", "[tools]") {
    Serving serving;
    struct stat status {};
    REQUIRE(::lstat(serving.folder.socket().c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0600);
}

TEST_CASE("a client that sends a line without end, or does not read, harms only itself", "[tools]") {
    Serving serving;
    auto endless = connect_unix(serving.folder.socket());
    write_raw(*endless, std::string(LineBuffer::kMaxRequest + 1, 'x'));
    auto deaf = connect_unix(serving.folder.socket());
    write_raw(*deaf, "flood\n");

    auto client = ControlClient::connect(serving.folder.socket());
    CHECK(client->call({{"a", 1}}, 10s).has_value());

    std::string heard;
    std::array<char, 4096> bytes;
    for (ssize_t got = 0; (got = ::recv(endless->get(), bytes.data(), bytes.size(), 0)) > 0;) {
        heard.append(bytes.data(), static_cast<std::size_t>(got));
    }
    CHECK(field(json::parse(heard, nullptr, false), "ok") == false);
    std::size_t flooded = 0;
    for (ssize_t got = 0; (got = ::recv(deaf->get(), bytes.data(), bytes.size(), 0)) > 0;) {
        flooded += static_cast<std::size_t>(got);
    }
    CHECK(flooded < 80u * 65536);
}

TEST_CASE("a client that always has a further request does not keep the others waiting", "[tools]") {
    Serving serving;
    serving.feeder = std::move(*connect_unix(serving.folder.socket()));
    write_raw(serving.feeder, "again\n");
    auto client = ControlClient::connect(serving.folder.socket());
    CHECK(client->call({{"a", 1}}, 10s).has_value());
    // Whatever the server is at, it can end.
    ::shutdown(serving.feeder.get(), SHUT_RDWR);
}

TEST_CASE("a name has one owner, and a dead one's is free", "[tools]") {
    SocketFolder folder;
    {
        auto first = UnixListener::listen(folder.socket());
        REQUIRE(first.has_value());
        CHECK(*is_listening(folder.socket()));
        const auto second = UnixListener::listen(folder.socket());
        REQUIRE_FALSE(second.has_value());
        CHECK(second.error().code() == vmm::Code::invalid);

        // As a process that was killed leaves it: the file without the listener.
        REQUIRE(::rename(folder.socket().c_str(), (folder.path + "/t").c_str()) == 0);
    }
    REQUIRE(::rename((folder.path + "/t").c_str(), folder.socket().c_str()) == 0);
    CHECK_FALSE(*is_listening(folder.socket()));
    CHECK(is_listening(std::string(200, 'x')).error().code() == vmm::Code::limit);
    CHECK(connect_unix(folder.socket()).error().code() == vmm::Code::closed);
    {
        const auto again = UnixListener::listen(folder.socket());
        CHECK(again.has_value());
    }
    struct stat status {};
    CHECK(::lstat(folder.socket().c_str(), &status) != 0);
}

TEST_CASE("a file that is not a socket is never replaced", "[tools]") {
    SocketFolder folder;
    REQUIRE(::mkdir(folder.socket().c_str(), 0700) == 0);
    CHECK_FALSE(UnixListener::listen(folder.socket()).has_value());
    REQUIRE(::rmdir(folder.socket().c_str()) == 0);
}
