// The language of the control socket: one JSON object a line. docs/json.md has its schemas.
//
//     request   {"id"?, "command", arguments ..}
//     reply     {"id"?, "ok": true, results ..} or {"id"?, "ok": false, "error": {"code", "what", "where",
//     "do"}} event     {"event", ..}, to whoever asked for events, between the replies
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>
#include <variant>

#include "migration/fault.hpp"
#include "migration/report.hpp"
#include "migration/source.hpp"
#include "tools/vmm/link_options.hpp"

namespace tools {

struct StatusRequest {};
struct PauseRequest {};
struct ResumeRequest {};
struct StopRequest {};
struct EventsRequest {};
struct CancelRequest {};
struct MigrateRequest {
    migration::Address to;
    LinkOptions link;
    migration::SourceOptions options;
    std::optional<migration::FaultPlan> fault;
};
struct ResolveRequest {
    migration::Resolution resolution{};
};
struct PreflightRequest {
    migration::Address to;
    LinkOptions link;
};

using RequestBody = std::variant<StatusRequest, PauseRequest, ResumeRequest, StopRequest, EventsRequest,
                                 CancelRequest, MigrateRequest, ResolveRequest, PreflightRequest>;

// A request, or what is wrong with it. What is not known is an error, never ignored.
struct ParsedRequest {
    nlohmann::json id;  // text or a whole number, given back in the reply; null when there is none
    vmm::Result<RequestBody> body;
};
ParsedRequest parse_request(std::string_view line);

// The object of a request, for clients.
nlohmann::json to_json(const MigrateRequest& request);
nlohmann::json to_json(const PreflightRequest& request);

std::string ok_line(const nlohmann::json& id, nlohmann::json results = nlohmann::json::object());
std::string error_line(const nlohmann::json& id, const migration::Reason& error);
// Text that is not UTF-8 is repaired, never an error.
std::string line_of(const nlohmann::json& object);

// "what (where); do", without the parts that are empty.
std::string one_line(const migration::Reason& reason);

}  // namespace tools
