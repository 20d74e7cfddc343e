// vmm with a phase gate: a test can hold either side of a migration at a named phase, look, and kill there.
//
// GODWIT_GATE is a TCP port of 127.0.0.1 on which the test listens (the sandbox lets who leads a migration
// connect by TCP, and not by Unix sockets). On entering a phase a process connects to it, on a connection for
// each thread, and writes "source pause 1234\n" or "destination loaded 1234\n": role, phase, pid. The answer
// "go\n" lets it go on; "hold\n" keeps it there until "go\n", or until the test closes the connection.
// `refused` cannot be held: it may be entered on a thread that moves pages, which may not connect, but may
// write to what the process has open since its first phase.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <mutex>
#include <string>

#include "migration/event.hpp"
#include "tools/vmm/vmm_main.hpp"
#include "vmm/base/unique_fd.hpp"

namespace {

// The connection of one thread of one process: a thread that is held must not hold others, and a child of a
// fork must not speak for its parent.
class GateConnection {
  public:
    // Returns when the test lets us go on; at once when it is not there.
    void pass(const std::string& line) {
        if (!connect() || ::write(socket_.get(), line.data(), line.size()) < 0) {
            return;
        }
        for (std::string answer; answer != "go"; answer = read_line()) {
            if (!socket_) {
                return;
            }
        }
    }

    bool connect() {
        if (socket_ && owner_ == ::getpid()) {
            return true;
        }
        const char* port = std::getenv("GODWIT_GATE");
        if (port == nullptr) {
            return false;
        }
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(static_cast<std::uint16_t>(std::strtoul(port, nullptr, 10)));
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socket_ = vmm::UniqueFd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
        owner_ = ::getpid();
        if (::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
            socket_.reset();
        }
        return static_cast<bool>(socket_);
    }

  private:
    // Without its line feed; closes the socket when there will be none.
    std::string read_line() {
        std::string line;
        char c = 0;
        while (::read(socket_.get(), &c, 1) == 1) {
            if (c == '\n') {
                return line;
            }
            line += c;
        }
        socket_.reset();
        return line;
    }

    vmm::UniqueFd socket_;
    pid_t owner_ = 0;
};

class Gate final : public migration::EventSink {
  public:
    void on(const migration::Event& event) override {
        if (const auto* source = std::get_if<migration::SourceEntered>(&event.what)) {
            pass("source", migration::name_of(source->phase));
        } else if (const auto* destination = std::get_if<migration::DestinationEntered>(&event.what)) {
            pass("destination", migration::name_of(destination->phase));
        }
    }

  private:
    void pass(std::string_view role, std::string_view phase) {
        thread_local GateConnection own;
        const std::string line = fmt::format("{} {} {}\n", role, phase, ::getpid());
        if (phase == migration::name_of(migration::DestinationPhase::refused)) {
            const std::lock_guard lock{mutex_};
            return shared_.pass(line);
        }
        {
            const std::lock_guard lock{mutex_};
            (void)shared_.connect();
        }
        own.pass(line);
    }

    std::mutex mutex_;
    GateConnection shared_;
};

}  // namespace

int main(int argc, char** argv) {
    Gate gate;
    return tools::vmm_main(argc, argv, &gate);
}
