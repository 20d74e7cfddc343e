// vmm with a phase gate: a test can hold either side of a migration at a named phase, look, and kill there.
//
// GODWIT_GATE names a Unix stream socket on which the test listens. On entering a phase a process connects to
// it, on a connection for each thread, and writes "source pause 1234\n" or "destination loaded 1234\n": role,
// phase, pid. The answer "go\n" lets it go on; "hold\n" keeps it there until "go\n", or until the test closes
// the connection.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
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
        if (!connect() || ::send(socket_.get(), line.data(), line.size(), MSG_NOSIGNAL) < 0) {
            return;
        }
        for (std::string answer; answer != "go"; answer = read_line()) {
            if (!socket_) {
                return;
            }
        }
    }

  private:
    bool connect() {
        if (socket_ && owner_ == ::getpid()) {
            return true;
        }
        const char* path = std::getenv("GODWIT_GATE");
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        if (path == nullptr || std::strlen(path) >= sizeof address.sun_path) {
            return false;
        }
        std::memcpy(address.sun_path, path, std::strlen(path));
        socket_ = vmm::UniqueFd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
        owner_ = ::getpid();
        if (::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
            socket_.reset();
        }
        return static_cast<bool>(socket_);
    }

    // Without its line feed; closes the socket when there will be none.
    std::string read_line() {
        std::string line;
        char c = 0;
        while (::recv(socket_.get(), &c, 1, 0) == 1) {
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
    static void pass(std::string_view role, std::string_view phase) {
        thread_local GateConnection connection;
        connection.pass(fmt::format("{} {} {}\n", role, phase, ::getpid()));
    }
};

}  // namespace

int main(int argc, char** argv) {
    Gate gate;
    return tools::vmm_main(argc, argv, &gate);
}
