// forge_answers PID: tells the listener, on the channel of the session whose process PID is, that the session
// has refused: as the answer to each of the first queries that anybody may have made. What a guest that has
// broken out of its virtual machine could say there. Prints how many answers were taken.
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>

#include "tools/vmm/session_channel.hpp"
#include "vmm/state/encode.hpp"

namespace {

constexpr std::uint64_t kQueries = 32;

// The only one of its kind that a session has.
vmm::UniqueFd channel_of(pid_t pid) {
    const vmm::UniqueFd process{static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))};
    for (int number = 0; number < 256; ++number) {
        vmm::UniqueFd found{static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), number, 0))};
        int type = 0;
        socklen_t length = sizeof type;
        if (found && ::getsockopt(found.get(), SOL_SOCKET, SO_TYPE, &type, &length) == 0 &&
            type == SOCK_SEQPACKET) {
            return found;
        }
    }
    return {};
}

}  // namespace

int main(int argc, char** argv) {
    const vmm::UniqueFd channel = argc == 2 ? channel_of(std::atoi(argv[1])) : vmm::UniqueFd{};
    if (!channel) {
        fmt::print(stderr, "forge_answers: no process with a channel to a listener\n");
        return 1;
    }
    std::uint64_t taken = 0;
    for (std::uint64_t number = 1; number <= kQueries; ++number) {
        tools::ChannelMessage message;
        message.kind = tools::ChannelMessage::Kind::answer;
        message.number = number;
        message.outcome = migration::QueryOutcome::refused;
        const vmm::Bytes bytes = vmm::encode(message);
        const ssize_t sent = ::send(channel.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        taken += sent == static_cast<ssize_t>(bytes.size()) ? 1 : 0;
    }
    fmt::print("{}\n", taken);
    return taken == 0 ? 1 : 0;
}
