#include "devices/raw_terminal.hpp"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>

namespace devices {

namespace {

// For the atexit handler; there is one terminal.
std::atomic<const RawTerminal*> current = nullptr;

}  // namespace

bool RawTerminal::in_foreground(int fd) {
    const pid_t group = ::tcgetpgrp(fd);
    // -1: not the terminal that controls us, so its jobs are no concern of ours.
    return group < 0 || group == ::getpgrp();
}

vmm::Result<std::unique_ptr<RawTerminal>> RawTerminal::create(int fd) {
    termios before{};
    if (::tcgetattr(fd, &before) != 0) {
        return vmm::fail_errno(vmm::Code::io, "terminal settings");
    }
    vmm::UniqueFd own{::fcntl(fd, F_DUPFD_CLOEXEC, 3)};
    if (!own) {
        return vmm::fail_errno(vmm::Code::io, "duplicate descriptor {}", fd);
    }
    termios raw = before;
    ::cfmakeraw(&raw);
    raw.c_oflag = before.c_oflag;
    if (::tcsetattr(fd, TCSANOW, &raw) != 0) {
        return vmm::fail_errno(vmm::Code::io, "put the terminal in raw mode");
    }
    std::unique_ptr<RawTerminal> terminal{new RawTerminal{std::move(own), before}};
    current = terminal.get();
    static const int registered = std::atexit([] {
        if (const RawTerminal* left = current.exchange(nullptr)) {
            left->restore();
        }
    });
    (void)registered;
    return terminal;
}

RawTerminal::~RawTerminal() {
    current = nullptr;
    restore();
}

// With SIGTTOU blocked a job in the background may do this too, instead of being stopped by it.
void RawTerminal::restore() const {
    sigset_t output;
    sigset_t before;
    ::sigemptyset(&output);
    ::sigaddset(&output, SIGTTOU);
    ::pthread_sigmask(SIG_BLOCK, &output, &before);
    (void)::tcsetattr(fd_.get(), TCSANOW, &before_);
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace devices
