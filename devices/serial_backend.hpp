// The host side of a serial port: where its output goes and its input comes from.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "vmm/base/event_loop.hpp"
#include "vmm/base/result.hpp"

namespace devices {

// The serial port as its back end sees it. Called on the I/O thread only.
class SerialWire {
  public:
    virtual ~SerialWire() = default;

    // Offers the oldest undelivered output, in one piece, to `deliver`, which returns how many of the bytes
    // the host took; these leave the queue. False, without a call, when there is none or the device is
    // paused.
    virtual bool transmit(const std::function<std::size_t(std::span<const std::byte>)>& deliver) = 0;
    // Offers the room in the receiver to `fetch`, which fills it from the front without blocking and returns
    // how many bytes that were. False, without a call, when there is no room or the device is paused; the
    // back end is woken when there is room again.
    virtual bool receive(const std::function<std::size_t(std::span<std::byte>)>& fetch) = 0;
    // What happens to output from now on.
    enum class Listener {
        present,  // it is delivered; the guest waits while the queue is full
        absent,   // the queue keeps the newest bytes for whoever comes, and the guest never waits
        none,     // it vanishes, the queue's contents included
    };
    virtual void set_listener(Listener listener) = 0;
};

class SerialBackend {
  public:
    // No call to the wire follows once this has returned.
    virtual ~SerialBackend() = default;
    // Once, before the guest runs. The wire must outlive the back end.
    virtual void attach(SerialWire& wire) = 0;
    // There is output to deliver, or room for input again. Any thread, with the caller's locks held.
    virtual void wake() = 0;
};

struct SerialConfig {
    enum class Kind {
        // Standard input and output. A terminal is put in raw mode and Ctrl-] quits; one that belongs to
        // another job is
        // not read.
        stdio,
        // Output vanishes, no input.
        null,
        // Output is appended to `path`, because a guest that comes back must not erase what it wrote; no
        // input.
        file,
        // Listens on the Unix socket `path`, one client at a time.
        socket,
    };
    Kind kind = Kind::null;
    std::string path;
};

// stdio | null | file:PATH | unix:PATH
vmm::Result<SerialConfig> parse_serial(std::string_view text);

// What back ends tell the rest of the program: on the I/O thread, which must not be kept waiting, and with no
// lock of a device held. Neither may be empty, but for Kind::null.
struct SerialEvents {
    // Ctrl-] was typed on the terminal.
    std::function<void()> quit;
    // The host refused to take more output; from now on only the newest is kept.
    std::function<void(const vmm::Error&)> failed;
};

vmm::Result<std::unique_ptr<SerialBackend>> make_serial_backend(const SerialConfig& config,
                                                                vmm::EventLoop& loop, SerialEvents events);

}  // namespace devices
