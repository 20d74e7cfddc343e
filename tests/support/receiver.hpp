// `vmm receive` without sockets and processes: a Connector whose connections end in a DestinationSession of
// this process, routed as the listener routes them.
#pragma once

#include <condition_variable>
#include <map>
#include <thread>

#include "migration/destination_session.hpp"
#include "migration/report.hpp"
#include "migration/source.hpp"
#include "tests/support/memory_transport.hpp"
#include "tests/support/scripted_vm.hpp"

namespace tests {

class EventLog final : public migration::EventSink {
  public:
    void on(const migration::Event& event) override;
    std::vector<migration::Event> take();
    template <typename T>
    std::vector<T> all() const {
        const std::lock_guard lock{mutex_};
        std::vector<T> found;
        for (const migration::Event& event : events_) {
            if (const T* what = std::get_if<T>(&event.what)) {
                found.push_back(*what);
            }
        }
        return found;
    }
    // Called on the thread that enters the phase.
    std::function<void(migration::SourcePhase)> on_source;
    std::function<void(migration::DestinationPhase)> on_destination;

  private:
    mutable std::mutex mutex_;
    std::vector<migration::Event> events_;
};

// Holds whoever calls hold() until release(); the test waits for it with wait_held().
class PhaseGate {
  public:
    void hold();
    void wait_held();
    void release();

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool held_ = false;
    bool released_ = false;
};

class MemoryRecords final : public migration::RecordStore {
  public:
    vmm::Result<std::unique_ptr<migration::RecordHandle>> create(const migration::Record& record) override;
    // By role; there is one session a store.
    std::optional<migration::RecordStatus> status(migration::Role role) const;
    std::vector<migration::RecordStatus> history(migration::Role role) const;
    void fail_from_now_on() { failing_ = true; }

  private:
    friend class MemoryRecord;
    mutable std::mutex mutex_;
    std::map<migration::Role, std::vector<migration::RecordStatus>> history_;
    std::atomic<bool> failing_ = false;
};

class Receiver final : public migration::Connector {
  public:
    explicit Receiver(migration::EventSink& events) : events_(events) {}
    ~Receiver() override { join(); }

    vmm::Result<std::unique_ptr<migration::Transport>> connect(const migration::Deadline& deadline) override;
    std::string address() const override { return "memory"; }

    // Of the n-th connection (0 is control). Later ones have none.
    std::vector<Fault> faults;
    std::function<void()> before_send;  // on every connection of the source
    bool reachable = true;
    ScriptedDestination vm;
    MemoryRecords records;

    // Waits for every session to end.
    void join();
    // Breaks the control connection from outside, now.
    void cut();
    // Bytes through the n-th connection, one of those that live as long as the source.
    std::uint64_t sent(std::size_t n = 0) const { return n < made_.size() ? made_[n]->bytes_sent() : 0; }
    std::uint64_t received(std::size_t n = 0) const {
        return n < made_.size() ? made_[n]->bytes_received() : 0;
    }

  private:
    void serve(std::unique_ptr<migration::Transport> transport);

    migration::EventSink& events_;
    std::vector<std::unique_ptr<ByteFault>> points_;
    std::vector<migration::FaultyTransport*> made_;

    std::mutex mutex_;
    std::condition_variable session_made_;
    std::unique_ptr<migration::DestinationSession> session_;
    std::vector<std::thread> threads_;
};

// One migration of a scripted guest.
struct Bed {
    explicit Bed(std::uint64_t pages = 16) : source(pages), receiver(events) {
        source.disk = receiver.vm.disk = &disk;
        source.take_exclusives();
    }

    migration::Outcome migrate(migration::SourceOptions options = {});

    EventLog events;
    ScriptedDisk disk;
    ScriptedSource source;
    Receiver receiver;
    MemoryRecords source_records;
    std::unique_ptr<migration::Source> engine;
    migration::Report migration_report;
};

}  // namespace tests
