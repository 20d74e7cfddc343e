// The back end that listens on a Unix socket.
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <fstream>

#include "tests/unit/devices/serial_host.hpp"

using devices::Serial16550State;
using devices::SerialConfig;
using tests::Host;
using tests::pattern;
using tests::read_fd;
using tests::TempFolder;
using tests::write_fd;
using vmm::UniqueFd;
using namespace std::chrono_literals;

namespace {

UniqueFd connect_to(const std::string& path) {
    UniqueFd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    return fd;
}

bool closed_by_peer(int fd) {
    pollfd entry{fd, POLLIN, 0};
    char byte = 0;
    return ::poll(&entry, 1, 10'000) == 1 && ::recv(fd, &byte, 1, MSG_PEEK) == 0;
}

}  // namespace

TEST_CASE("a Unix socket serves one client after another and keeps output in between", "[devices]") {
    const TempFolder folder;
    const std::string path = folder.file("tty");
    Host host;
    host.start(SerialConfig::Kind::socket, path);
    struct stat status {};
    REQUIRE(::stat(path.c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0600);

    const std::string early = pattern(Serial16550State::kOutputLimit + 500);
    host.print(early);
    UniqueFd first = connect_to(path);
    CHECK(read_fd(first.get(), Serial16550State::kOutputLimit) == early.substr(500));
    write_fd(first.get(), "first");
    CHECK(host.read(5) == "first");

    const UniqueFd second = connect_to(path);
    CHECK(closed_by_peer(second.get()));

    first.reset();
    std::this_thread::sleep_for(50ms);
    host.print("while away");
    UniqueFd third = connect_to(path);
    CHECK(read_fd(third.get(), 10) == "while away");

    // It leaves unnoticed: the guest does not read, so nobody looks at its descriptor.
    write_fd(third.get(), pattern(100));
    std::this_thread::sleep_for(20ms);
    third.reset();
    const UniqueFd fourth = connect_to(path);
    std::this_thread::sleep_for(20ms);
    host.print("hello");
    CHECK(read_fd(fourth.get(), 5) == "hello");
    CHECK(host.failures == 0);

    host.stop();
    CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("a client that only sends, and one that only receives", "[devices]") {
    const TempFolder folder;
    const std::string path = folder.file("tty");
    Host host;
    host.start(SerialConfig::Kind::socket, path);
    {
        const UniqueFd sender = connect_to(path);
        write_fd(sender.get(), pattern(500));
    }
    CHECK(host.read(500) == pattern(500));
    const UniqueFd half = connect_to(path);
    REQUIRE(::shutdown(half.get(), SHUT_WR) == 0);
    std::this_thread::sleep_for(20ms);
    host.print("still here");
    CHECK(read_fd(half.get(), 10) == "still here");
}

TEST_CASE("a stale socket is replaced; one in use, a file and a long path are errors", "[devices]") {
    const TempFolder folder;
    const std::string path = folder.file("tty");
    {
        const UniqueFd dead{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        path.copy(address.sun_path, sizeof address.sun_path - 1);
        REQUIRE(::bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    }
    Host host;
    host.start(SerialConfig::Kind::socket, path);
    const auto again = [&](const std::string& where) {
        return devices::make_serial_backend({SerialConfig::Kind::socket, where}, host.loop(), {});
    };
    const auto used = again(path);
    REQUIRE_FALSE(used);
    CHECK(used.error().text().find("in use") != std::string::npos);
    CHECK(std::filesystem::exists(path));

    std::ofstream{folder.file("data")} << "precious";
    CHECK_FALSE(again(folder.file("data")));
    CHECK(std::filesystem::file_size(folder.file("data")) == 8);
    CHECK_FALSE(again("/tmp/" + std::string(200, 'x')));
    CHECK_FALSE(again(folder.file("no/such/folder")));

    // Whoever replaced the file keeps it.
    std::filesystem::remove(path);
    std::ofstream{path} << "other";
    host.stop();
    CHECK(std::filesystem::exists(path));
}
