// FaultyTransport: a connection that breaks as it is told. What tests and tools/faultlab break, and when, is
// decided by their FaultPoint.
#pragma once

#include <atomic>
#include <thread>

#include "migration/transport.hpp"
#include "vmm/base/bytes.hpp"

namespace migration {

// What happens to one call.
struct Strike {
    enum class Kind {
        none,
        cut,        // the bytes before `byte` pass, then both directions end
        corrupt,    // bit 0 of `byte` flips
        timeout,    // the bytes before `byte` pass; the call ends as at its deadline, but at once
        silence,    // nothing passes any more in this direction, and the sender does not learn it
        delay,      // passes `time` later; the caller waits
        duplicate,  // passes twice
        reorder,    // passes after the next one
        late,  // fails as with a lost connection, and passes `time` later, whatever the caller does meanwhile
    };
    Kind kind = Kind::none;
    std::uint64_t byte = 0;  // of this call
    vmm::Duration time{};
};

class FaultPoint {
  public:
    enum class Direction { send, receive };

    virtual ~FaultPoint() = default;
    // Before a call that moves `size` bytes; `before` were moved in that direction. Each send is a whole
    // frame. Of receive(): none, cut, corrupt or timeout.
    virtual Strike strike(Direction direction, std::uint64_t before, std::size_t size) = 0;
    // After a send that passed.
    virtual void sent() {}
};

class FaultyTransport final : public Transport {
  public:
    // The point must outlive it.
    FaultyTransport(std::unique_ptr<Transport> inner, FaultPoint& point)
        : inner_(std::move(inner)), point_(point) {}
    ~FaultyTransport() override;

    vmm::Result<void> introduce(const Hello& hello, const Deadline& deadline) override {
        return inner_->introduce(hello, deadline);
    }
    vmm::Result<void> send(std::span<const iovec> parts, const Deadline& deadline) override;
    vmm::Result<void> receive(std::span<const iovec> parts, const Deadline& deadline) override;
    void shutdown() override;
    void abort() override;
    double delivery_rate() const override { return inner_->delivery_rate(); }
    LinkSecurity security() const override { return inner_->security(); }
    std::string peer() const override { return inner_->peer(); }

    // Bytes that passed.
    std::uint64_t bytes_sent() const { return sent_; }
    std::uint64_t bytes_received() const { return received_; }

  private:
    using Operation = vmm::Result<void> (Transport::*)(std::span<const iovec>, const Deadline&);

    vmm::Result<void> end_at(const Strike& strike, std::span<const iovec> parts, const Deadline& deadline,
                             Operation operation, std::atomic<std::uint64_t>& count);
    vmm::Result<void> send_struck(const Strike& strike, std::span<const iovec> parts,
                                  const Deadline& deadline);
    vmm::Result<void> send_late(vmm::Bytes frame, vmm::Duration time);

    const std::unique_ptr<Transport> inner_;
    FaultPoint& point_;
    std::atomic<std::uint64_t> sent_ = 0;
    std::atomic<std::uint64_t> received_ = 0;
    bool silent_ = false;   // of the sending thread
    vmm::Bytes held_back_;  // to pass after the next frame; of the sending thread
    std::atomic<bool> late_ = false;
    std::thread late_sender_;
};

}  // namespace migration
