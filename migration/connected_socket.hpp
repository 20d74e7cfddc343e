// ConnectedSocket: a connected TCP socket and every wait for it. What is sent over it plain or encrypted
// waits by the same rules: Deadline in transport.hpp.
#pragma once

#include "migration/transport.hpp"
#include "vmm/base/unique_fd.hpp"

struct sockaddr;

namespace migration {

// 127.0.0.0/8 or ::1: nobody else reads along.
bool is_loopback(const sockaddr& address);

class ConnectedSocket {
  public:
    // Sets TCP_NODELAY, keep-alive and TCP_USER_TIMEOUT, so that a dead peer is noticed in seconds.
    static vmm::Result<ConnectedSocket> adopt(vmm::UniqueFd socket, std::string peer);

    enum class Direction { send, receive };
    // All bytes of all parts, in order.
    vmm::Result<void> transfer(std::span<const iovec> parts, const Deadline& deadline,
                               Direction direction) const;

    // What one call that must not wait came to.
    enum class Step { done, moved, readable, writable };
    // Calls `step` until it is done; waits, within the deadline, until the socket is what the last call
    // needs.
    template <typename F>
    vmm::Result<void> drive(const Deadline& deadline, F&& step) const;

    // What errno `error` of a call means for the connection.
    vmm::Error broken(int error) const;

    // Any thread; see Transport.
    void shutdown() const;
    void abort() const;

    double delivery_rate() const;
    // The peer is on another host.
    bool leaves_host() const;
    const std::string& peer() const { return peer_; }
    int fd() const { return socket_.get(); }

  private:
    ConnectedSocket(vmm::UniqueFd socket, std::string peer)
        : socket_(std::move(socket)), peer_(std::move(peer)) {}

    vmm::Result<void> check_time(const Deadline& deadline) const;
    // `last_progress` moves on while what was sent before is on its way.
    vmm::Result<void> wait(short events, const Deadline& deadline, vmm::TimePoint& last_progress) const;
    vmm::Result<void> wait_for(Step step, const Deadline& deadline, vmm::TimePoint& last_progress) const;

    vmm::UniqueFd socket_;
    std::string peer_;
};

template <typename F>
vmm::Result<void> ConnectedSocket::drive(const Deadline& deadline, F&& step) const {
    vmm::TimePoint last_progress = vmm::real_clock().now();
    for (;;) {
        TRY(check_time(deadline));
        const Step outcome = TRY(step());
        if (outcome == Step::done) {
            return {};
        }
        TRY(wait_for(outcome, deadline, last_progress));
    }
}

}  // namespace migration
