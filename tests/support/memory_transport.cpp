#include "tests/support/memory_transport.hpp"

#include <condition_variable>
#include <cstring>

namespace tests {

using migration::Deadline;
using migration::Transport;
using vmm::Code;
using vmm::fail;
using vmm::Result;

namespace {

// One direction.
struct Pipe {
    vmm::Bytes bytes;
    std::size_t taken = 0;
    bool ended = false;  // no more will be written
};

struct Link {
    std::mutex mutex;
    std::condition_variable changed;
    Pipe pipes[2];
    bool shut[2] = {false, false};  // by that side
};

class MemoryTransport final : public Transport {
  public:
    MemoryTransport(std::shared_ptr<Link> link, int side) : link_(std::move(link)), side_(side) {}
    ~MemoryTransport() override { shutdown(); }

    Result<void> send(std::span<const iovec> parts, const Deadline&) override {
        const std::lock_guard lock{link_->mutex};
        Pipe& out = link_->pipes[side_];
        if (link_->shut[0] || link_->shut[1]) {
            return fail(Code::closed, "the connection is closed");
        }
        for (const iovec& part : parts) {
            const auto* data = static_cast<const std::byte*>(part.iov_base);
            out.bytes.insert(out.bytes.end(), data, data + part.iov_len);
        }
        link_->changed.notify_all();
        return {};
    }

    Result<void> receive(std::span<const iovec> parts, const Deadline& deadline) override {
        std::unique_lock lock{link_->mutex};
        Pipe& in = link_->pipes[1 - side_];
        for (const iovec& part : parts) {
            for (std::size_t done = 0; done < part.iov_len;) {
                const auto available = [&] {
                    return in.bytes.size() > in.taken || in.ended || link_->shut[side_];
                };
                if (!wait(lock, deadline, available)) {
                    return fail(Code::timeout, "nothing came in time");
                }
                if (link_->shut[side_] || in.bytes.size() == in.taken) {
                    return fail(Code::closed, "the connection is closed");
                }
                const std::size_t size = std::min(part.iov_len - done, in.bytes.size() - in.taken);
                std::memcpy(static_cast<std::byte*>(part.iov_base) + done, in.bytes.data() + in.taken, size);
                in.taken += size;
                done += size;
            }
        }
        if (in.taken == in.bytes.size()) {
            in.bytes.clear();
            in.taken = 0;
        }
        return {};
    }

    void shutdown() override {
        const std::lock_guard lock{link_->mutex};
        link_->shut[side_] = true;
        link_->pipes[0].ended = link_->pipes[1].ended = true;
        link_->changed.notify_all();
    }

    // Nothing waits here to leave: what was sent is the other side's already.
    void abort() override { shutdown(); }

    std::string peer() const override { return "memory"; }

  private:
    template <typename Condition>
    bool wait(std::unique_lock<std::mutex>& lock, const Deadline& deadline, Condition condition) {
        vmm::TimePoint until = deadline.at.value_or(vmm::TimePoint::max());
        if (deadline.progress != vmm::Duration::max()) {
            until = std::min(until, vmm::real_clock().now() + deadline.progress);
        }
        if (until == vmm::TimePoint::max()) {
            link_->changed.wait(lock, condition);
            return true;
        }
        return link_->changed.wait_until(lock, until, condition);
    }

    std::shared_ptr<Link> link_;
    int side_;
};

}  // namespace

std::pair<std::unique_ptr<Transport>, std::unique_ptr<Transport>> make_memory_transports() {
    auto link = std::make_shared<Link>();
    return {std::make_unique<MemoryTransport>(link, 0), std::make_unique<MemoryTransport>(link, 1)};
}

migration::Strike ByteFault::strike(Direction direction, std::uint64_t before, std::size_t size) {
    if (direction == Direction::send && before_send) {
        before_send();
    }
    using Kind = migration::Strike::Kind;
    if (fault_.kind == Fault::Kind::none || fault_.direction != direction ||
        before + size <= fault_.at_byte || (fault_.kind == Fault::Kind::corrupt && before > fault_.at_byte)) {
        return {};
    }
    const std::uint64_t byte = fault_.at_byte - std::min(before, fault_.at_byte);
    switch (fault_.kind) {
        case Fault::Kind::cut:
            return {Kind::cut, byte, {}};
        case Fault::Kind::corrupt:
            return {Kind::corrupt, byte, {}};
        default:
            return {Kind::timeout, byte, {}};
    }
}

}  // namespace tests
