// A pair of connected transports inside one process, and one that breaks as it is told.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "migration/transport.hpp"
#include "vmm/base/bytes.hpp"

namespace tests {

// What one side has sent is readable by the other until its end, even after a shutdown; the side that shut
// down reads nothing more. Never waits in send().
std::pair<std::unique_ptr<migration::Transport>, std::unique_ptr<migration::Transport>>
make_memory_transports();

// When, and how, a connection breaks. Bytes are counted on the side that holds the transport.
struct Fault {
    enum class Kind { none, cut, corrupt, stall };
    enum class Direction { send, receive };

    Kind kind = Kind::none;
    Direction direction = Direction::send;
    std::uint64_t at_byte = 0;
};

// Cut: everything before `at_byte` passes, then both directions end. Corrupt: one bit of that byte flips,
// once. Stall: from that byte on nothing passes in that direction, and a call ends as at its deadline, but at
// once: nobody waits for seconds to pass.
class FaultyTransport final : public migration::Transport {
  public:
    FaultyTransport(std::unique_ptr<migration::Transport> inner, Fault fault)
        : inner_(std::move(inner)), fault_(fault) {}

    vmm::Result<void> send(std::span<const iovec> parts, const migration::Deadline& deadline) override;
    vmm::Result<void> receive(std::span<const iovec> parts, const migration::Deadline& deadline) override;
    void shutdown() override { inner_->shutdown(); }
    void abort() override { inner_->abort(); }
    std::string peer() const override { return inner_->peer(); }

    // Called before each send; what a guest does in that instant.
    std::function<void()> before_send;

    std::uint64_t sent() const { return sent_; }
    std::uint64_t received() const { return received_; }

  private:
    using Operation = vmm::Result<void> (migration::Transport::*)(std::span<const iovec>,
                                                                  const migration::Deadline&);
    vmm::Result<void> pass(std::span<const iovec> parts, const migration::Deadline& deadline,
                           Fault::Direction direction, std::atomic<std::uint64_t>& count,
                           Operation operation);

    std::unique_ptr<migration::Transport> inner_;
    const Fault fault_;
    std::atomic<std::uint64_t> sent_ = 0;
    std::atomic<std::uint64_t> received_ = 0;
};

}  // namespace tests
