// Sends back what it is sent: on TCP port 7 (RFC 862), and on the virtio console when there is one.

#include <array>
#include <atomic>
#include <cerrno>
#include <thread>

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "runtime/guest.hpp"
#include "service.hpp"

namespace selfcheck {
namespace {

constexpr uint16_t kPort = 7;
constexpr const char* kConsole = "/dev/hvc0";

[[noreturn]] void fail_with(const char* reason) {
    guest::fail(guest::Fields().text("reason", reason).signed_number("errno", errno));
}

class Echo : public Service {
  public:
    void start(const guest::Parameters&, guest::Fields& ready) override {
        std::thread([this, listener = listen_on(kPort)] { serve(listener); }).detach();
        const int console = open(kConsole, O_RDWR | O_NOCTTY | O_CLOEXEC);
        ready.number("console", console < 0 ? 0 : 1);
        if (console >= 0) {
            termios mode = {};
            tcgetattr(console, &mode);
            cfmakeraw(&mode);
            tcsetattr(console, TCSANOW, &mode);
            std::thread([this, console] { echo(console, console_bytes_); }).detach();
        }
    }

    void report(guest::Fields& counters) const override {
        counters.number("tcp_connections", connections_).number("tcp_bytes", tcp_bytes_);
        counters.number("console_bytes", console_bytes_);
    }

    // The peer judges: it compares what comes back.
    bool verify(guest::Fields&) override { return true; }

  private:
    static int listen_on(uint16_t port) {
        const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_in address = {};
        address.sin_family = AF_INET;
        address.sin_port = htons(port);
        if (listener < 0 || bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 ||
            listen(listener, 16) != 0) {
            fail_with("no_echo_port");
        }
        return listener;
    }

    void serve(int listener) {
        for (;;) {
            const int peer = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
            if (peer < 0) {
                fail_with("accept_failed");
            }
            ++connections_;
            std::thread([this, peer] {
                echo(peer, tcp_bytes_);
                close(peer);
            }).detach();
        }
    }

    // Until the other side ends or breaks.
    static void echo(int descriptor, std::atomic<uint64_t>& bytes) {
        std::array<char, 65536> buffer;
        for (;;) {
            const ssize_t received = read(descriptor, buffer.data(), buffer.size());
            if (received <= 0) {
                return;
            }
            for (ssize_t sent = 0; sent < received;) {
                const ssize_t now =
                    write(descriptor, buffer.data() + sent, static_cast<std::size_t>(received - sent));
                if (now <= 0) {
                    return;
                }
                sent += now;
            }
            bytes += static_cast<uint64_t>(received);
        }
    }

    std::atomic<uint64_t> connections_ = 0;
    std::atomic<uint64_t> tcp_bytes_ = 0;
    std::atomic<uint64_t> console_bytes_ = 0;
};

}  // namespace

std::unique_ptr<Service> make_echo() {
    return std::make_unique<Echo>();
}

}  // namespace selfcheck
