#include "tools/vmm/signals.hpp"

#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

namespace tools {

vmm::Result<EndSignals> EndSignals::block() {
    ::signal(SIGPIPE, SIG_IGN);
    sigset_t signals;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, SIGTERM);
    for (const int number : {SIGINT, SIGHUP}) {
        // Blocked, even an ignored signal would be delivered to the descriptor.
        struct sigaction action {};
        if (::sigaction(number, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) {
            ::sigaddset(&signals, number);
        }
    }
    if (const int error = ::pthread_sigmask(SIG_BLOCK, &signals, nullptr); error != 0) {
        return vmm::Failure{vmm::Error::from_errno(vmm::Code::io, "block signals", error)};
    }
    vmm::UniqueFd fd{::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK)};
    if (!fd) {
        return vmm::fail_errno(vmm::Code::io, "signalfd");
    }
    return EndSignals{std::move(fd)};
}

std::optional<int> EndSignals::take() const {
    signalfd_siginfo info{};
    if (::read(fd_.get(), &info, sizeof info) != static_cast<ssize_t>(sizeof info)) {
        return std::nullopt;
    }
    return static_cast<int>(info.ssi_signo);
}

}  // namespace tools
