#include "devices/serial_stream.hpp"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>

namespace devices {

using vmm::Code;
using vmm::Result;

namespace {

StreamMode mode_of(int fd) {
    struct stat status {};
    if (::fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode)) {
        return StreamMode::socket;
    }
    const int flags = ::fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_NONBLOCK) != 0 ? StreamMode::nonblocking : StreamMode::polled;
}

short poll_now(int fd, short events) {
    pollfd entry{fd, events, 0};
    return ::poll(&entry, 1, 0) > 0 ? entry.revents : short{0};
}

// write(2) that cannot raise SIGPIPE: the signal goes to the writing thread, where it is blocked and taken
// back.
ssize_t write_quietly(int fd, std::span<const std::byte> bytes) {
    sigset_t pipe;
    sigset_t before;
    ::sigemptyset(&pipe);
    ::sigaddset(&pipe, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe, &before);
    const ssize_t count = ::write(fd, bytes.data(), bytes.size());
    const int error = errno;
    if (count < 0 && error == EPIPE) {
        const timespec now{};
        ::sigtimedwait(&pipe, nullptr, &now);
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    errno = error;
    return count;
}

// How many bytes were moved; 0: not now.
Result<std::size_t> outcome(ssize_t count, const char* what) {
    if (count >= 0) {
        return static_cast<std::size_t>(count);
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
        return std::size_t{0};
    }
    return vmm::fail_errno(errno == EPIPE || errno == ECONNRESET ? Code::closed : Code::io, "{}", what);
}

Result<std::size_t> read_some(int fd, StreamMode mode, std::span<std::byte> room) {
    if (mode == StreamMode::polled && poll_now(fd, POLLIN) == 0) {
        return std::size_t{0};
    }
    const ssize_t count = mode == StreamMode::socket ? ::recv(fd, room.data(), room.size(), MSG_DONTWAIT)
                                                     : ::read(fd, room.data(), room.size());
    // EIO is how a terminal says that its other side has gone.
    if (count == 0 || (count < 0 && errno == EIO)) {
        return vmm::fail(Code::closed, "end of input");
    }
    return outcome(count, "read");
}

Result<std::size_t> write_some(int fd, StreamMode mode, std::span<const std::byte> bytes) {
    switch (mode) {
        case StreamMode::socket:
            return outcome(::send(fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL), "write");
        case StreamMode::polled:
            if (poll_now(fd, POLLOUT) == 0) {
                return std::size_t{0};
            }
            bytes = bytes.first(std::min<std::size_t>(bytes.size(), PIPE_BUF));
            break;
        case StreamMode::nonblocking:
            break;
    }
    return outcome(write_quietly(fd, bytes), "write");
}

// Empty for what epoll cannot watch because it is always ready.
Result<vmm::EventLoop::Watch> watch_stream(vmm::EventLoop& loop, int fd, std::function<void()> ready) {
    auto watch = loop.watch(fd, 0, [ready = std::move(ready)](std::uint32_t) { ready(); });
    if (!watch && watch.error().sys_errno() == EPERM) {
        return vmm::EventLoop::Watch{};
    }
    return watch;
}

void set_interest(vmm::EventLoop::Watch& watch, std::uint32_t interest) {
    if (watch) {
        watch.set_interest(interest);
    }
}

}  // namespace

Result<vmm::UniqueFd> private_stream(int fd, int access) {
    struct stat status {};
    if (::fstat(fd, &status) != 0) {
        return vmm::fail_errno(Code::io, "descriptor {}", fd);
    }
    // A file's position belongs to the open description, so a file is shared on purpose; a socket cannot be
    // reopened.
    if (!S_ISREG(status.st_mode) && !S_ISSOCK(status.st_mode)) {
        vmm::UniqueFd own{
            ::open(fmt::format("/proc/self/fd/{}", fd).c_str(), access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)};
        if (own) {
            return own;
        }
    }
    vmm::UniqueFd copy{::fcntl(fd, F_DUPFD_CLOEXEC, 3)};
    if (!copy) {
        return vmm::fail_errno(Code::io, "duplicate descriptor {}", fd);
    }
    return copy;
}

Result<StreamInput> StreamInput::create(vmm::EventLoop& loop, vmm::UniqueFd fd, std::function<void()> ready) {
    const StreamMode mode = mode_of(fd.get());
    StreamInput input{std::move(fd), mode};
    input.watch_ = TRY(watch_stream(loop, input.fd_.get(), std::move(ready)));
    return input;
}

Result<void> StreamInput::pump(SerialWire& wire, const Filter& filter) {
    for (;;) {
        Result<std::size_t> got = std::size_t{0};
        const bool room = wire.receive([&](std::span<std::byte> to) -> std::size_t {
            got = read_some(fd_.get(), mode_, to);
            return got && *got != 0 ? filter(to.first(*got)) : 0;
        });
        if (room && got && *got != 0) {
            continue;
        }
        const bool more = room && got;
        set_interest(watch_, more ? static_cast<std::uint32_t>(EPOLLIN) : 0);
        if (!got) {
            return vmm::Failure{std::move(got).error()};
        }
        return {};
    }
}

Result<StreamOutput> StreamOutput::create(vmm::EventLoop& loop, vmm::UniqueFd fd,
                                          std::function<void()> ready) {
    const StreamMode mode = mode_of(fd.get());
    StreamOutput output{std::move(fd), mode};
    output.watch_ = TRY(watch_stream(loop, output.fd_.get(), std::move(ready)));
    return output;
}

Result<void> StreamOutput::pump(SerialWire& wire) {
    for (;;) {
        Result<std::size_t> sent = std::size_t{0};
        const bool waiting = wire.transmit([&](std::span<const std::byte> from) -> std::size_t {
            sent = write_some(fd_.get(), mode_, from);
            return sent ? *sent : 0;
        });
        if (waiting && sent && *sent != 0) {
            continue;
        }
        const bool blocked = waiting && sent;
        set_interest(watch_, blocked ? static_cast<std::uint32_t>(EPOLLOUT) : 0);
        if (!sent) {
            return vmm::Failure{std::move(sent).error()};
        }
        return {};
    }
}

bool StreamOutput::hung_up() const {
    return (poll_now(fd_.get(), 0) & (POLLHUP | POLLERR)) != 0;
}

}  // namespace devices
