#include "tools/vmm/status.hpp"

#include <unistd.h>

namespace tools {

using nlohmann::json;

namespace {

json migration_status(MigrationService& migrations) {
    if (migrations.peer().empty()) {
        return nullptr;
    }
    const migration::Report report = migrations.report();
    json out = migration::to_json(report);
    if (migrations.state() == MigrationService::State::running) {
        out["result"] = nullptr;
    }
    return {{"peer", migrations.peer()},
            {"active", migrations.state() != MigrationService::State::idle},
            {"phase", migration::name_of(migrations.phase())},
            {"report", std::move(out)}};
}

std::string_view state_of(const vmm::Lifecycle& lifecycle, const MigrationService& migrations) {
    if (migrations.state() == MigrationService::State::unknown) {
        return "outcome_unknown";
    }
    switch (lifecycle.state()) {
        case vmm::RunState::created:
            return "created";
        case vmm::RunState::running:
            return "running";
        case vmm::RunState::paused:
            return "paused";
        case vmm::RunState::ended:
            return "ended";
    }
    return "ended";
}

}  // namespace

std::string uuid_text(const migration::Uuid& uuid) {
    std::string text = migration::to_hex(uuid);
    for (const std::size_t dash : {8u, 13u, 18u, 23u}) {
        text.insert(dash, 1, '-');
    }
    return text;
}

json status_of(migration::Guest& guest, MigrationService& migrations, vmm::TimePoint owned_since) {
    migrations.update();
    const vmm::MachineConfig& config = guest.machine->config();
    const bool leaving = migrations.state() != MigrationService::State::idle;
    return {{"name", config.name},
            {"uuid", uuid_text(config.uuid)},
            {"pid", ::getpid()},
            {"state", state_of(*guest.lifecycle, migrations)},
            {"memory_bytes", config.ram_bytes},
            {"vcpus", config.vcpus},
            {"role", leaving ? "source" : "owner"},
            {"peer", leaving ? json(migrations.peer()) : json(nullptr)},
            {"uptime_ms", vmm::to_ms(vmm::real_clock().now() - owned_since)},
            {"resets", guest.lifecycle->resets()},
            {"triple_faults", guest.machine->requests().triple_faults()},
            {"epoch", guest.epoch},
            {"unassigned_accesses",
             {{"ports", guest.machine->ports().unassigned_accesses()},
              {"memory", guest.machine->mmio().unassigned_accesses()}}},
            {"migration", migration_status(migrations)}};
}

json status_of_arriving(const std::string& name, const std::string& peer) {
    return {{"name", name},
            {"uuid", nullptr},
            {"pid", ::getpid()},
            {"state", "arriving"},
            {"memory_bytes", nullptr},
            {"vcpus", nullptr},
            {"role", "destination"},
            {"peer", peer},
            {"uptime_ms", nullptr},
            {"resets", nullptr},
            {"triple_faults", nullptr},
            {"epoch", nullptr},
            {"unassigned_accesses", nullptr},
            {"migration", nullptr}};
}

void add_sandbox(json& status, const SandboxOptions& sandbox) {
    status["sandbox"] = sandbox.filtered ? "on" : "off";
    status["user"] = sandbox.user.empty() ? json(nullptr) : json(sandbox.user);
}

}  // namespace tools
