// Moves bytes between a serial wire and a descriptor of the host without ever blocking. On the loop's thread
// only, once created.
#pragma once

#include <functional>
#include <span>

#include "devices/serial_backend.hpp"
#include "vmm/base/event_loop.hpp"
#include "vmm/base/unique_fd.hpp"

namespace devices {

// How a descriptor is kept from blocking.
enum class StreamMode {
    nonblocking,  // O_NONBLOCK is set
    socket,       // MSG_DONTWAIT; the flag would be shared with other processes
    polled,       // asked first, and written in pieces that a pipe takes whole
};

// A descriptor for what `fd` refers to that does not disturb whoever shares it: O_NONBLOCK on an inherited
// terminal or pipe would change it for the shell too. `access` is O_RDONLY or O_WRONLY.
vmm::Result<vmm::UniqueFd> private_stream(int fd, int access);

class StreamInput {
  public:
    // Looks at bytes just read and returns how many of them, moved to the front, the guest gets.
    using Filter = std::function<std::size_t(std::span<std::byte>)>;

    // `ready`: call pump() again.
    static vmm::Result<StreamInput> create(vmm::EventLoop& loop, vmm::UniqueFd fd,
                                           std::function<void()> ready);

    // Moves input until there is none or the guest has no room. Code::closed: there will never be more; do
    // not call again after an error.
    vmm::Result<void> pump(SerialWire& wire, const Filter& filter);

  private:
    StreamInput(vmm::UniqueFd fd, StreamMode mode) : fd_(std::move(fd)), mode_(mode) {}

    vmm::UniqueFd fd_;
    StreamMode mode_;
    vmm::EventLoop::Watch watch_;  // empty for a file, which is always ready
};

class StreamOutput {
  public:
    // `ready`: call pump() again.
    static vmm::Result<StreamOutput> create(vmm::EventLoop& loop, vmm::UniqueFd fd,
                                            std::function<void()> ready);

    // Moves output until there is none or the host takes no more. Code::closed: the reader has gone; do not
    // call again after an error.
    vmm::Result<void> pump(SerialWire& wire);
    // Both directions of the peer are closed (sockets).
    bool hung_up() const;

  private:
    StreamOutput(vmm::UniqueFd fd, StreamMode mode) : fd_(std::move(fd)), mode_(mode) {}

    vmm::UniqueFd fd_;
    StreamMode mode_;
    vmm::EventLoop::Watch watch_;  // empty for a file, which is always ready
};

}  // namespace devices
