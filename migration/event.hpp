// What happens during a migration, as typed events. Report, progress line, JSON and benchmark are folds over
// them, so they cannot disagree; tests hold a side at a phase from inside a sink.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "migration/message.hpp"
#include "migration/policy.hpp"
#include "migration/transport.hpp"
#include "vmm/base/clock.hpp"
#include "vmm/guest/device.hpp"

namespace migration {

enum class SourcePhase : std::uint8_t {
    connect,
    negotiate,
    preflight,
    prepare,
    copy,
    pause,
    final,
    commit,
    done
};
enum class DestinationPhase : std::uint8_t {
    greeted,
    configured,
    receiving,
    verified,
    loaded,
    started,
    refused,
    failed,
    parked,
};

std::string_view name_of(SourcePhase phase);
std::string_view name_of(DestinationPhase phase);

struct SourceEntered {
    SourcePhase phase{};
};
struct DestinationEntered {
    DestinationPhase phase{};
    std::string session;
};
struct SessionOpened {
    std::string session;
    std::string peer;
    std::uint16_t streams = 0;
};
// The destination has no place yet, and lets us wait; said again when we have moved up.
struct Queued {
    std::uint16_t place = 0;  // from 1
    std::string text;         // the destination's words
};
// Both sides have proved who they are, and what follows is encrypted; of the control connection.
struct Secured {
    TlsFacts tls;
};
struct Warned {
    Reason reason;
};
struct RoundStarted {
    std::uint32_t round = 0;
    std::uint64_t owed_pages = 0;
};
// About ten a second while rounds run.
struct Progressed {
    std::uint32_t round = 0;
    std::uint64_t bytes_sent = 0;  // since the session began, on all connections
    std::uint64_t owed_pages = 0;  // at the start of the round
    double rate = 0;               // bytes/s over the last tenth of a second
};
struct RoundFinished {
    Round round;
};
struct Decided {
    Verdict verdict;
};

// The connection was lost, and for as long as --retry says the source tries to come back.
struct Interrupted {
    Reason reason;
    vmm::Duration retry{};
};
// It is back, and the migration goes on with what the destination held.
struct Resumed {
    vmm::Duration outage{};
    std::uint64_t kept_pages = 0;  // that the destination holds as they were last sent
    std::uint64_t owed_pages = 0;  // that must be sent, again or for the first time
};

// Moments of the pause at the source, in order. The parts of the downtime lie between them.
enum class Moment : std::uint8_t {
    pause_begun,      // first vCPU asked to stop
    paused,           // all vCPUs and devices quiet
    saved,            // state saved
    last_round_sent,  // the pages owed at the pause, and those that saving wrote
    state_sent,       // digest and state
    ready_received,
    commit_sent,
    running_received,
};
struct Reached {
    Moment moment{};
};
// How the devices came to rest, inside pause_begun to paused.
struct Drained {
    vmm::Drain drain;
};
struct DestinationTimes {
    vmm::Duration verify{};   // inside the wait for Ready
    vmm::Duration restore{};  // inside the wait for Ready
};
struct DestinationResumed {
    vmm::Duration resume{};  // inside the wait for Running
};

enum class Outcome : std::uint8_t { completed, failed, cancelled, unknown };
std::string_view name_of(Outcome outcome);

struct Ended {
    Outcome outcome = Outcome::failed;
    std::vector<Reason> reasons;
    std::uint64_t bytes_sent = 0;
    bool digest_verified = false;
};

struct Event {
    vmm::TimePoint at;
    std::variant<SourceEntered, DestinationEntered, SessionOpened, Queued, Secured, Warned, RoundStarted,
                 Progressed, RoundFinished, Decided, Reached, Drained, DestinationTimes, DestinationResumed,
                 Interrupted, Resumed, Ended>
        what;
};

class EventSink {
  public:
    virtual ~EventSink() = default;
    // Called on the thread where it happens, in the pause too: keep it short. Several threads at once at the
    // destination.
    virtual void on(const Event& event) = 0;
};

}  // namespace migration
