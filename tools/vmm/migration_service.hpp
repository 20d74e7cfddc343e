// MigrationService: the migrations that leave a guest's process, one at a time, each on a thread of its own.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <thread>

#include "migration/machine_port.hpp"
#include "migration/report.hpp"
#include "tools/vmm/control_protocol.hpp"
#include "tools/vmm/event_queue.hpp"

namespace tools {

// On the loop's thread only.
class MigrationService {
  public:
    struct Environment {
        vmm::EventLoop& loop;
        migration::Guest& guest;
        std::string state_directory;
        migration::EventSink* extra = nullptr;
    };
    struct Callbacks {
        std::function<void(std::span<const migration::Event>)> events;
        // A migration ended, or its outcome is unknown; the latter is followed by the final one.
        std::function<void(migration::Outcome)> outcome;
    };
    enum class State { idle, running, unknown };

    MigrationService(Environment environment, Callbacks callbacks);
    // None runs.
    ~MigrationService();

    // `connector` leads to request.to.
    vmm::Result<void> start(const MigrateRequest& request, std::unique_ptr<migration::Connector> connector);
    // False: too late, or none runs.
    bool cancel();
    // False: no outcome is unknown.
    bool resolve(migration::Resolution resolution);

    State state() const { return state_; }
    // Takes in what has happened up to now.
    void update();

    // Of the migration that runs, or else of the last one; peer() is empty when there was none.
    const std::string& peer() const { return peer_; }
    migration::Report report() const { return migration::fold(events_); }
    migration::SourcePhase phase() const { return phase_; }

  private:
    struct Active;

    void ended(migration::Outcome outcome);
    void keep(const migration::Event& event);

    Environment environment_;
    Callbacks callbacks_;
    State state_ = State::idle;
    EventQueue queue_;
    std::unique_ptr<Active> active_;
    std::string peer_;
    std::vector<migration::Event> events_;
    migration::SourcePhase phase_ = migration::SourcePhase::connect;
};

}  // namespace tools
