#include "devices/serial_socket.hpp"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>

namespace devices {

using vmm::Code;
using vmm::Result;

namespace {

constexpr int kBacklog = 4;
constexpr int kSocketFlags = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;

Result<sockaddr_un> address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) {
        return vmm::fail(Code::invalid, "socket path {} is longer than {} bytes; use a shorter one", path,
                         sizeof address.sun_path - 1);
    }
    std::copy(path.begin(), path.end(), address.sun_path);
    return address;
}

// Removes a socket that no process listens on.
Result<void> remove_stale(const sockaddr_un& address, const std::string& path) {
    struct stat status {};
    if (::lstat(path.c_str(), &status) == 0 && !S_ISSOCK(status.st_mode)) {
        return vmm::fail(Code::invalid, "{} exists and is not a socket; choose another path", path);
    }
    const vmm::UniqueFd probe{::socket(AF_UNIX, kSocketFlags, 0)};
    if (!probe) {
        return vmm::fail_errno(Code::io, "socket");
    }
    const int connected = ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
    if (connected == 0 || errno == EAGAIN) {
        return vmm::fail(Code::invalid, "socket {} is in use by another process; choose another path", path);
    }
    if (errno == ECONNREFUSED && ::unlink(path.c_str()) != 0 && errno != ENOENT) {
        return vmm::fail_errno(Code::io, "remove the stale socket {}", path);
    }
    return {};
}

}  // namespace

Result<std::unique_ptr<SerialBackend>> SocketBackend::create(vmm::EventLoop& loop, SerialEvents events,
                                                             const std::string& path) {
    std::unique_ptr<SocketBackend> backend{
        new SocketBackend{loop, std::move(events), TRY(vmm::WakeFd::create()), path}};
    SocketBackend* self = backend.get();
    TRY(self->listen());
    self->listener_watch_ =
        TRY(loop.watch(self->listener_.get(), 0, [self](std::uint32_t) { self->accept_clients(); }));
    self->wake_watch_ = TRY(loop.watch(self->wake_.fd(), EPOLLIN, [self](std::uint32_t) {
        self->wake_.clear();
        self->pump();
    }));
    return backend;
}

Result<void> SocketBackend::listen() {
    const sockaddr_un address = TRY(address_of(path_));
    vmm::UniqueFd fd{::socket(AF_UNIX, kSocketFlags, 0)};
    // The mode of the descriptor becomes that of the socket file, without a moment in which others may
    // connect.
    if (!fd || ::fchmod(fd.get(), 0600) != 0) {
        return vmm::fail_errno(Code::io, "socket");
    }
    const auto bind = [&] {
        return ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    };
    bool bound = bind();
    if (!bound && errno == EADDRINUSE) {
        TRY(remove_stale(address, path_));
        bound = bind();
    }
    if (!bound || ::listen(fd.get(), kBacklog) != 0) {
        return vmm::fail_errno(Code::io, "listen on {}", path_);
    }
    struct stat status {};
    if (::lstat(path_.c_str(), &status) == 0) {
        inode_ = status.st_ino;
    }
    listener_ = std::move(fd);
    return {};
}

SocketBackend::~SocketBackend() {
    const auto quiet = loop_.quiesce();
    client_.reset();
    listener_watch_.reset();
    wake_watch_.reset();
    struct stat status {};
    if (inode_ != 0 && ::lstat(path_.c_str(), &status) == 0 && status.st_ino == inode_) {
        ::unlink(path_.c_str());
    }
}

void SocketBackend::attach(SerialWire& wire) {
    const auto quiet = loop_.quiesce();
    wire_ = &wire;
    listener_watch_.set_interest(EPOLLIN);
}

void SocketBackend::accept_clients() {
    for (;;) {
        vmm::UniqueFd fd{::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
        if (!fd) {
            if (errno == EINTR || errno == ECONNABORTED) {
                continue;
            }
            if (errno != EAGAIN) {
                // Out of descriptors, say; ready for ever, so try again when a client has left.
                const int error = errno;
                listener_watch_.set_interest(0);
                events_.failed(vmm::Error::from_errno(Code::io, "accept a client on " + path_, error));
            }
            return;
        }
        // A client that left without our noticing (no output, no room for its input) makes way.
        if (client_ && client_->output.hung_up()) {
            drop_client();
        }
        if (client_) {
            continue;
        }
        if (auto client = make_client(std::move(fd))) {
            client_.emplace(std::move(*client));
            wire_->set_listener(SerialWire::Listener::present);
            pump();
        } else {
            events_.failed(std::move(client).error());
        }
    }
}

Result<SocketBackend::Client> SocketBackend::make_client(vmm::UniqueFd fd) {
    // Two descriptors, because epoll watches a descriptor once.
    vmm::UniqueFd second = TRY(fd.duplicate());
    const auto ready = [this] { pump(); };
    StreamOutput output = TRY(StreamOutput::create(loop_, std::move(fd), ready));
    return Client{std::move(output), TRY(StreamInput::create(loop_, std::move(second), ready))};
}

void SocketBackend::drop_client() {
    client_.reset();
    wire_->set_listener(SerialWire::Listener::absent);
    listener_watch_.set_interest(EPOLLIN);
}

void SocketBackend::pump() {
    if (!client_) {
        return;
    }
    const auto everything = [](std::span<std::byte> bytes) { return bytes.size(); };
    if (client_->input && !client_->input->pump(*wire_, everything)) {
        client_->input.reset();
    }
    if (!client_->output.pump(*wire_) || (!client_->input && client_->output.hung_up())) {
        drop_client();
    }
}

}  // namespace devices
