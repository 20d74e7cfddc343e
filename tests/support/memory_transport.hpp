// A pair of connected transports inside one process, and one that breaks as it is told.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "migration/faulty_transport.hpp"

namespace tests {

// What one side has sent is readable by the other until its end, even after a shutdown; the side that shut
// down reads nothing more. Never waits in send().
std::pair<std::unique_ptr<migration::Transport>, std::unique_ptr<migration::Transport>>
make_memory_transports();

// When, and how, a connection breaks. Bytes are counted on the side that holds the transport. Cut: everything
// before `at_byte` passes, then both directions end. Corrupt: one bit of that byte flips, once. Stall: from
// that byte on nothing passes in that direction, and a call ends as at its deadline, but at once: nobody
// waits for seconds.
struct Fault {
    enum class Kind { none, cut, corrupt, stall };
    using Direction = migration::FaultPoint::Direction;

    Kind kind = Kind::none;
    Direction direction = Direction::send;
    std::uint64_t at_byte = 0;
};

// That, for one FaultyTransport.
class ByteFault final : public migration::FaultPoint {
  public:
    explicit ByteFault(Fault fault) : fault_(fault) {}
    migration::Strike strike(Direction direction, std::uint64_t before, std::size_t size) override;

    // Called before each send; what a guest does in that instant.
    std::function<void()> before_send;

  private:
    const Fault fault_;
};

}  // namespace tests
