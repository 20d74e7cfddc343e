// The object of `vmm preflight --json`.
#pragma once

#include <nlohmann/json.hpp>

#include "migration/source.hpp"

namespace tools {

nlohmann::json preflight_json(const migration::PreflightResult& result);

// The destination could not be asked.
nlohmann::json preflight_json(const vmm::Error& error, const std::string& destination);

}  // namespace tools
