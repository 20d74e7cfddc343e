// SessionChannel: between the listener of `vmm receive` and the process of one session. The listener alone
// accepts connections, so it passes those of the session on.
#pragma once

#include <optional>
#include <utility>

#include "migration/message.hpp"
#include "vmm/base/result.hpp"
#include "vmm/base/unique_fd.hpp"

namespace tools {

struct ChannelMessage {
    static constexpr vmm::StateId id{"channel-message", 1, 1};

    enum class Kind : std::uint8_t {
        // to the session
        join,   // a data connection, with `hello`, `peer` and the descriptor
        query,  // answered with the same `number`
        // from the session
        answer,
        owned,     // the guest is this process's
        over,      // the session has ended
        released,  // the guest has ended in good order, and everything it used is free
    };

    Kind kind = Kind::over;
    std::uint64_t number = 0;
    migration::QueryOutcome outcome = migration::QueryOutcome::unknown;
    bool acknowledged = false;  // of `over`: the source knows that the guest runs here
    migration::Hello hello;
    std::string peer;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.enumeration("kind", self.kind, Kind::released);
        v.field("number", self.number);
        v.enumeration("outcome", self.outcome, migration::QueryOutcome::unknown);
        v.field("acknowledged", self.acknowledged);
        v.part("hello", self.hello);
        v.text("peer", self.peer, 256);
    }
};

// Any thread may send; one receives.
class SessionChannel {
  public:
    static vmm::Result<std::pair<SessionChannel, SessionChannel>> create();

    struct Received {
        ChannelMessage message;
        vmm::UniqueFd descriptor;
    };

    // Never waits for the other side: an error when it takes nothing, or is gone.
    vmm::Result<void> send(const ChannelMessage& message, int descriptor = -1) const;
    // Waits, or, if not, returns nothing when there is nothing. Code::closed: the other side is gone.
    vmm::Result<std::optional<Received>> receive(bool wait) const;
    // Receiving ends, here, as if the other side were gone.
    void shut() const;
    int fd() const { return socket_.get(); }

  private:
    explicit SessionChannel(vmm::UniqueFd socket) : socket_(std::move(socket)) {}
    vmm::UniqueFd socket_;
};

}  // namespace tools
