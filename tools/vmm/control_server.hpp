// ControlServer: the clients of a guest's control socket. A client that is slow, silent or wrong harms only
// itself.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "tools/vmm/line_buffer.hpp"
#include "tools/vmm/unix_socket.hpp"
#include "vmm/base/clock.hpp"
#include "vmm/base/event_loop.hpp"

namespace tools {

// On the loop's thread only.
class ControlServer {
  public:
    using Client = std::uint64_t;  // never used twice

    struct Callbacks {
        std::function<void(Client client, const std::string& line)> request;
        // Not called for what send() drops while it runs.
        std::function<void(Client client)> gone;
    };

    static constexpr std::size_t kMaxClients = 64;
    // What may wait for a client that does not read; with more it is dropped.
    static constexpr std::size_t kMaxQueued = std::size_t{4} << 20;

    // The loop must outlive it.
    static vmm::Result<std::unique_ptr<ControlServer>> listen(vmm::EventLoop& loop, const std::string& path,
                                                              Callbacks callbacks);

    const std::string& path() const { return listener_.path(); }
    // Queues a line, given without its line feed. Nothing for a client that is gone.
    void send(Client client, const std::string& line);
    // From now on the name is free, and nobody new comes; clients stay.
    void close_listener();
    // Waits until the clients have taken what is queued, or gone, or `limit` has passed.
    void drain(vmm::Duration limit);

  private:
    struct Connection {
        vmm::UniqueFd socket;
        LineBuffer in{LineBuffer::kMaxRequest};
        std::string out;
        bool closing = false;  // once `out` is gone
        vmm::EventLoop::Watch watch;
    };

    ControlServer(vmm::EventLoop& loop, UnixListener listener, Callbacks callbacks)
        : loop_(loop), listener_(std::move(listener)), callbacks_(std::move(callbacks)) {}

    void accept_clients();
    void ready(Client client, std::uint32_t events);
    // False: the client is gone.
    bool read(Client client);
    bool flush(Client client);
    void drop(Client client);

    vmm::EventLoop& loop_;
    UnixListener listener_;
    vmm::EventLoop::Watch listener_watch_;
    Callbacks callbacks_;
    std::map<Client, Connection> clients_;
    Client next_client_ = 1;
};

}  // namespace tools
