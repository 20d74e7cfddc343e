// Listener: the process of `vmm receive`. It accepts every connection, reads its first message, and passes it
// to the process of its session; it answers Query for sessions whose process is gone. One thread and no
// EventLoop, because it forks, and an epoll instance would be shared with the child.
#pragma once

#include <map>
#include <memory>
#include <variant>
#include <vector>

#include "migration/record.hpp"
#include "migration/tls_channel.hpp"
#include "tools/vmm/frame_reader.hpp"
#include "tools/vmm/receive_options.hpp"
#include "tools/vmm/session_channel.hpp"
#include "tools/vmm/signals.hpp"
#include "vmm/base/clock.hpp"

namespace tools {

// What the process of a session begins with.
struct Accepted {
    migration::Hello hello;
    vmm::UniqueFd socket;
    std::string peer;
    std::unique_ptr<migration::TlsChannel> tls;  // of the socket; none: it is plain
    SessionChannel channel;
    bool serial_taken = false;  // by another guest of this listener
};

class Listener {
  public:
    static constexpr std::size_t kMaxPending = 16;
    static constexpr std::size_t kMaxPreflights = 4;
    static constexpr vmm::Duration kHelloLimit = std::chrono::seconds{5};
    // A session that has ended holds its name and its memory until its process is gone, and one that was
    // killed is known by nothing else: room for the next may be a moment away.
    static constexpr vmm::Duration kRoomLimit = std::chrono::seconds{2};
    // Before a source that waits its turn could take us for gone.
    static constexpr vmm::Duration kTellEvery = std::chrono::seconds{1};

    // The options must outlive it.
    static vmm::Result<std::unique_ptr<Listener>> create(const ReceiveOptions& options, EndSignals& signals);

    // With the port that was taken.
    const migration::Address& address() const { return listener_.address; }

    // Serves. Returns an exit status; or, in the child of a fork, a session to serve: the object is of no use
    // there any more and goes at once.
    std::variant<int, Accepted> run();

  private:
    // A connection that does not belong to a session's process: before its Hello, or asking with Query.
    struct Connection {
        enum class State { hello, handshake, waiting, asking, answered, done };
        // Neither authenticated nor of any use to us so far.
        bool is_silent() const { return state == State::hello || state == State::handshake; }
        bool is_queued() const { return state == State::waiting && place != 0; }
        vmm::Result<std::size_t> receive(std::span<std::byte> to);
        // False: it was not taken whole.
        bool send(const migration::Message& message);

        vmm::UniqueFd socket;
        std::string peer;
        vmm::TimePoint deadline;
        FrameReader reader;
        std::optional<migration::TlsPreamble> preamble;
        std::unique_ptr<migration::TlsChannel> tls;
        bool wants_room = false;  // to send, in its handshake
        State state = State::hello;
        std::uint64_t query = 0;                                             // its number, when asking
        migration::QueryOutcome outcome = migration::QueryOutcome::unknown;  // when answered
        migration::Hello hello;
        std::uint64_t arrival = 0;  // when waiting: before it come those with a lower one
        std::uint16_t place = 0;    // in the queue, from 1; 0: not in it
        vmm::TimePoint tell_at;     // when queued
    };
    // A process; it goes from the list when it has ended.
    struct Session {
        pid_t pid = 0;
        vmm::UniqueFd pidfd;
        SessionChannel channel;
        migration::Hello hello;
        std::string peer;
        bool over = false;
        bool owned = false;
        bool released = false;
        bool silent = false;  // its end of the channel is closed
    };
    // What is left of one that released its guest: its records cannot tell that from a crash.
    struct Released {
        migration::SessionId session;
        migration::Secret secret;
    };

    Listener(const ReceiveOptions& options, EndSignals& signals, migration::Listener listener,
             migration::RecordDirectory records, const migration::Uuid& boot_id)
        : options_(options),
          signals_(signals),
          listener_(std::move(listener)),
          records_(std::move(records)),
          boot_id_(boot_id) {}

    static vmm::TimePoint now() { return vmm::real_clock().now(); }
    void wait();
    void serve_signals();
    void serve_sessions();
    void serve_connections();
    void accept_connections();
    std::optional<int> finished() const;
    // One that brings a guest, or has brought it.
    static bool is_incoming(const std::unique_ptr<Session>& session) {
        return session->hello.purpose == migration::Purpose::control;
    }

    void serve(Connection& connection);
    void on_preamble(Connection& connection, const migration::TlsPreamble& preamble);
    void advance_handshake(Connection& connection);
    void on_hello(Connection& connection);
    // All that wait, first come first served.
    void seat_waiting();
    // Starts its session, or refuses it; while room may still be made it waits, until its deadline, or, with
    // a place in the queue, until its turn. `ahead`: guests that wait before it.
    void seat(Connection& connection, std::size_t ahead);
    void tell_place(Connection& connection, std::size_t place);
    // Of connections that are not in the queue.
    std::size_t pending() const;
    void start_session(Connection& connection);
    void join_session(Connection& connection);
    void pass_on(Connection& connection, const Session* session, const migration::Hello& hello);
    void ask_session(Connection& connection);
    void expire(Connection& connection);

    bool receive(Session& session);
    void reap(const Session& session, int wait_status);
    struct Refusal {
        std::string why;
        bool for_good = false;  // waiting does not help
    };
    std::optional<Refusal> refusal(migration::Purpose purpose) const;
    Session* find(const migration::Hello& hello);
    Session* find(const migration::SessionId& session);
    migration::QueryOutcome answer_from_records(const migration::Hello& hello) const;
    void answer(Connection& connection, migration::QueryOutcome outcome);
    static void reply(Connection& connection, migration::HelloStatus status, std::string text);

    const ReceiveOptions& options_;
    EndSignals& signals_;
    migration::Listener listener_;
    migration::RecordDirectory records_;
    migration::Uuid boot_id_;
    std::vector<std::unique_ptr<Connection>> connections_;  // oldest first
    std::vector<std::unique_ptr<Session>> sessions_;
    std::vector<Released> released_;
    std::uint64_t next_query_ = 1;
    std::uint64_t next_arrival_ = 1;
    bool stopping_ = false;
    vmm::TimePoint accept_after_;  // out of descriptors: not before

    // Of --once: the guest's session, and the status of its process with the time it must be reported by.
    std::optional<migration::SessionId> received_;
    bool resolved_ = false;  // the source knows that the guest runs here
    std::optional<int> status_;
    vmm::TimePoint leave_at_;

    std::optional<Accepted> child_;  // set in the child of a fork
};

}  // namespace tools
