// Back ends on descriptors: pipes, files, a socket pair and a pseudo-terminal.
#include "devices/serial_backend.hpp"

#include <fcntl.h>
#include <pty.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <fstream>
#include <thread>

#include "devices/serial_16550.hpp"
#include "devices/serial_descriptor.hpp"
#include "tests/unit/devices/device_state.hpp"
#include "tests/unit/devices/serial_host.hpp"

using devices::Serial16550;
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

template <typename F>
bool within_ten_seconds(F&& holds) {
    for (int i = 0; i < 2000; ++i) {
        if (holds()) {
            return true;
        }
        std::this_thread::sleep_for(5ms);
    }
    return false;
}

struct Pipe {
    Pipe() {
        std::array<int, 2> fds{};
        REQUIRE(::pipe2(fds.data(), O_CLOEXEC) == 0);
        out = UniqueFd{fds[0]};
        in = UniqueFd{fds[1]};
    }
    UniqueFd out;
    UniqueFd in;
};

}  // namespace

TEST_CASE("--serial takes four forms and nothing else", "[devices]") {
    using Kind = SerialConfig::Kind;
    CHECK(devices::parse_serial("stdio")->kind == Kind::stdio);
    CHECK(devices::parse_serial("null")->kind == Kind::null);
    CHECK(devices::parse_serial("file:/tmp/a:b")->path == "/tmp/a:b");
    CHECK(devices::parse_serial("unix:x")->kind == Kind::socket);
    for (const char* bad : {"", "stdio:", "tcp:1", "file", "file:", "unix:", "null:x", "STDIO", ":"}) {
        const auto parsed = devices::parse_serial(bad);
        INFO(bad);
        REQUIRE_FALSE(parsed);
        CHECK(parsed.error().code() == vmm::Code::invalid);
        CHECK(parsed.error().text().find('\n') == std::string::npos);
    }
}

TEST_CASE("null forgets output and lets the guest run", "[devices]") {
    Host host;
    host.start(SerialConfig::Kind::null, "");
    host.print(pattern(2 * Serial16550State::kOutputLimit));
    CHECK(host.serial().flush(0ms));
}

TEST_CASE("file output is appended, all of it", "[devices]") {
    const TempFolder folder;
    const std::string path = folder.file("log");
    const std::string text = pattern(3 * Serial16550State::kOutputLimit);
    for (int run = 0; run < 2; ++run) {
        Host host;
        host.start(SerialConfig::Kind::file, path);
        host.print(text);
        CHECK(host.serial().flush(10s));
    }
    std::ifstream file{path};
    CHECK(std::string{std::istreambuf_iterator<char>{file}, {}} == text + text);
    Host host;
    CHECK_FALSE(
        devices::make_serial_backend({SerialConfig::Kind::file, folder.file("no/such")}, host.loop(), {}));
}

TEST_CASE("stdio on pipes: a slow reader slows the guest and gets every byte", "[devices]") {
    Host host;
    Pipe input;
    Pipe output;
    host.start(
        devices::DescriptorBackend::stdio(host.loop(), host.events(), input.out.get(), output.in.get()));
    const std::string text = pattern(5 * Serial16550State::kOutputLimit);
    std::thread guest{[&] { host.print(text); }};
    std::this_thread::sleep_for(50ms);  // the pipe and the queue are full now
    CHECK(read_fd(output.out.get(), text.size()) == text);
    guest.join();
    write_fd(input.in.get(), pattern(1000));
    input.in.reset();
    CHECK(host.read(1000) == pattern(1000));
    // The flags of what we were given are not touched.
    CHECK((::fcntl(output.in.get(), F_GETFL) & O_NONBLOCK) == 0);
    CHECK((::fcntl(input.out.get(), F_GETFL) & O_NONBLOCK) == 0);
    CHECK(host.quits == 0);
}

TEST_CASE("stdio on pipes: a reader that goes away kills nobody", "[devices]") {
    Host host;
    Pipe input;
    Pipe output;
    host.start(
        devices::DescriptorBackend::stdio(host.loop(), host.events(), input.out.get(), output.in.get()));
    output.out.reset();
    host.print(pattern(2 * Serial16550State::kOutputLimit));
    CHECK(within_ten_seconds([&] { return host.failures == 1; }));
    host.print("goes on");
}

TEST_CASE("stdio on a file: input ends, output is written", "[devices]") {
    const TempFolder folder;
    std::ofstream{folder.file("in")} << pattern(100);
    const UniqueFd from{::open(folder.file("in").c_str(), O_RDONLY | O_CLOEXEC)};
    const UniqueFd to{::open(folder.file("out").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600)};
    Host host;
    host.start(devices::DescriptorBackend::stdio(host.loop(), host.events(), from.get(), to.get()));
    CHECK(host.read(100) == pattern(100));
    host.print("out");
    CHECK(host.serial().flush(10s));
    std::ifstream file{folder.file("out")};
    CHECK(std::string{std::istreambuf_iterator<char>{file}, {}} == "out");
}

TEST_CASE("stdio on sockets never blocks", "[devices]") {
    std::array<int, 2> fds{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()) == 0);
    const UniqueFd ours{fds[0]};
    UniqueFd theirs{fds[1]};
    Host host;
    host.start(devices::DescriptorBackend::stdio(host.loop(), host.events(), ours.get(), ours.get()));
    const std::string text = pattern(6 * Serial16550State::kOutputLimit);
    std::thread guest{[&] { host.print(text); }};
    std::this_thread::sleep_for(20ms);
    CHECK(read_fd(theirs.get(), text.size()) == text);
    guest.join();
    write_fd(theirs.get(), "input");
    CHECK(host.read(5) == "input");
    theirs.reset();
    host.print(pattern(Serial16550State::kOutputLimit));
    CHECK(within_ten_seconds([&] { return host.failures == 1; }));
}

TEST_CASE("stdio on a terminal: raw while it runs, Ctrl-] quits, restored at the end", "[devices]") {
    int master = -1;
    int slave = -1;
    REQUIRE(::openpty(&master, &slave, nullptr, nullptr, nullptr) == 0);
    const UniqueFd keyboard{master};
    const UniqueFd terminal{slave};
    termios before{};
    REQUIRE(::tcgetattr(slave, &before) == 0);
    {
        Host host;
        host.start(devices::DescriptorBackend::stdio(host.loop(), host.events(), slave, slave));
        termios raw{};
        REQUIRE(::tcgetattr(slave, &raw) == 0);
        CHECK((raw.c_lflag & (ICANON | ECHO | ISIG)) == 0);
        CHECK(raw.c_oflag == before.c_oflag);
        write_fd(keyboard.get(), "a\x03z");
        CHECK(host.read(3) == "a\x03z");  // Ctrl-C is the guest's
        CHECK(host.quits == 0);
        write_fd(keyboard.get(),
                 "b\x1d"
                 "c");
        CHECK(host.read(2) == "bc");
        CHECK(within_ten_seconds([&] { return host.quits == 1; }));
        host.print("line\n");
        CHECK(read_fd(keyboard.get(), 6) == "line\r\n");
    }
    termios after{};
    REQUIRE(::tcgetattr(slave, &after) == 0);
    CHECK(after.c_lflag == before.c_lflag);
    CHECK(after.c_iflag == before.c_iflag);
}

TEST_CASE("bytes survive pauses in the middle of a stream", "[devices]") {
    Host host;
    Pipe input;
    Pipe output;
    host.start(
        devices::DescriptorBackend::stdio(host.loop(), host.events(), input.out.get(), output.in.get()));
    const std::string text = pattern(20'000);
    std::string got;
    std::thread reader{[&] { got = read_fd(output.out.get(), text.size()); }};
    for (std::size_t at = 0; at < text.size(); at += 500) {
        host.print(std::string_view{text}.substr(at, 500));
        (void)host.serial().pause(tests::kPauseLimit);
        REQUIRE(tests::restore(host.serial(), tests::save(host.serial())));
        host.serial().resume();
    }
    reader.join();
    CHECK(got == text);
}
