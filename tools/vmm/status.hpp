// What `status` and `list` show of a guest.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>

#include "tools/vmm/migration_service.hpp"
#include "tools/vmm/sandbox.hpp"
#include "vmm/base/clock.hpp"

namespace tools {

// As UUIDs are written.
std::string uuid_text(const migration::Uuid& uuid);

nlohmann::json status_of(migration::Guest& guest, MigrationService& migrations, vmm::TimePoint owned_since);

// Of a guest that is still arriving from `peer`.
nlohmann::json status_of_arriving(const std::string& name, const std::string& peer);

// To either of them.
void add_sandbox(nlohmann::json& status, const SandboxOptions& sandbox);

}  // namespace tools
