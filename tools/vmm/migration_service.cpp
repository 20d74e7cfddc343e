#include "tools/vmm/migration_service.hpp"

#include "tools/vmm/faults.hpp"
#include "vmm/base/thread.hpp"

namespace tools {

using vmm::Code;
using vmm::fail;
using vmm::Result;

struct MigrationService::Active {
    Active(const Environment& environment, migration::RecordDirectory directory,
           std::unique_ptr<migration::Connector> route, const MigrateRequest& request, EventQueue& events,
           const migration::Uuid& boot_id)
        : vm(*environment.guest.machine, *environment.guest.lifecycle, environment.guest.epoch),
          connector(std::move(route)),
          records(std::move(directory)),
          faults(request.fault, records, events),
          source({vm, faults.wrap(*connector), faults.records(), faults.clock(), faults.events(), boot_id},
                 request.options) {}

    migration::MachineSource vm;
    std::unique_ptr<migration::Connector> connector;
    migration::RecordDirectory records;
    Faults faults;
    migration::Source source;
    std::thread thread;
};

MigrationService::MigrationService(Environment environment, Callbacks callbacks)
    : environment_(std::move(environment)),
      callbacks_(std::move(callbacks)),
      queue_(
          environment_.loop, [this] { update(); }, environment_.extra) {
}

MigrationService::~MigrationService() = default;

Result<void> MigrationService::start(const MigrateRequest& request,
                                     std::unique_ptr<migration::Connector> connector) {
    if (state_ != State::idle) {
        return fail(Code::refused, "a migration to {} is under way already", peer_);
    }
    auto records = TRY(migration::RecordDirectory::open(environment_.state_directory));
    records.remove_expired();
    active_ = std::make_unique<Active>(environment_, std::move(records), std::move(connector), request,
                                       queue_, TRY(migration::host_boot_id()));
    auto thread = vmm::start_thread("source", vmm::ThreadRole::migration, [this, source = &active_->source] {
        migration::Outcome outcome = source->run();
        environment_.loop.post([this, outcome] { ended(outcome); });
        if (outcome == migration::Outcome::unknown) {
            outcome = source->settle();
            environment_.loop.post([this, outcome] { ended(outcome); });
        }
    });
    if (!thread) {
        active_.reset();
        return vmm::Failure{std::move(thread).error()};
    }
    active_->thread = std::move(*thread);
    peer_ = request.to.text();
    events_.clear();
    phase_ = migration::SourcePhase::connect;
    state_ = State::running;
    return {};
}

bool MigrationService::cancel() {
    return state_ == State::running && active_->source.cancel();
}

bool MigrationService::resolve(migration::Resolution resolution) {
    return state_ == State::unknown && active_->source.resolve(resolution);
}

void MigrationService::update() {
    const std::vector<migration::Event> fresh = queue_.take();
    for (const migration::Event& event : fresh) {
        keep(event);
    }
    if (!fresh.empty()) {
        callbacks_.events(fresh);
    }
}

void MigrationService::keep(const migration::Event& event) {
    if (const auto* entered = std::get_if<migration::SourceEntered>(&event.what)) {
        phase_ = entered->phase;
    }
    // Ten a second for as long as it takes; the last one says it all.
    const bool progress = std::holds_alternative<migration::Progressed>(event.what);
    if (progress && !events_.empty() && std::holds_alternative<migration::Progressed>(events_.back().what)) {
        events_.back() = event;
    } else {
        events_.push_back(event);
    }
}

void MigrationService::ended(migration::Outcome outcome) {
    update();
    if (outcome == migration::Outcome::unknown) {
        state_ = State::unknown;
    } else {
        active_->thread.join();
        active_.reset();
        state_ = State::idle;
    }
    callbacks_.outcome(outcome);
}

}  // namespace tools
