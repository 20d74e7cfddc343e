#include "tools/vmm/control_protocol.hpp"

#include <cmath>
#include <set>

namespace tools {

using nlohmann::json;
using vmm::Code;
using vmm::fail;
using vmm::Result;

namespace {

constexpr double kMaxMilliseconds = 365.0 * 24 * 3600 * 1000;

// The arguments of a request. The first fault is kept; finish() also finds what nobody asked for.
class Arguments {
  public:
    explicit Arguments(const json& object) : object_(object), known_{"id", "command"} {}

    const json* find(const char* name) {
        known_.insert(name);
        const auto found = object_.find(name);
        return found == object_.end() || found->is_null() ? nullptr : &*found;
    }

    void address(const char* name, migration::Address& to) {
        const json* value = find(name);
        if (value == nullptr || !value->is_string()) {
            return refuse(name, "must be \"tcp:ADDR:PORT\"");
        }
        auto parsed = migration::Address::parse(value->get_ref<const std::string&>());
        if (!parsed) {
            return refuse(name, parsed.error().text());
        }
        to = std::move(*parsed);
    }

    void fault(const char* name, std::optional<migration::FaultPlan>& to) {
        const json* value = find(name);
        if (value == nullptr) {
            return;
        }
        auto plan = migration::FaultPlan::parse(
            value->is_string() ? value->get_ref<const std::string&>() : "", migration::Role::source);
        if (!plan) {
            return refuse(name, plan.error().text());
        }
        to = std::move(*plan);
    }

    void link(LinkOptions& to) {
        if (const json* directory = find("tls_dir")) {
            // Relative to what? Whoever asks has another directory than we.
            if (!directory->is_string() || !directory->get_ref<const std::string&>().starts_with('/')) {
                return refuse("tls_dir", "must be an absolute path");
            }
            to.tls_dir = directory->get<std::string>();
        }
        if (const json* peer = find("tls_peer")) {
            if (!peer->is_string() || to.tls_dir.empty()) {
                return refuse("tls_peer", "must be text, beside \"tls_dir\"");
            }
            auto parsed = migration::TlsPeer::parse(peer->get_ref<const std::string&>());
            if (!parsed) {
                return refuse("tls_peer", parsed.error().text());
            }
            to.tls_peer = std::move(*parsed);
        }
        if (const json* insecure = find("insecure")) {
            if (!insecure->is_boolean() || (insecure->get<bool>() && !to.tls_dir.empty())) {
                return refuse("insecure", "must be true or false, and not true beside \"tls_dir\"");
            }
            to.insecure = insecure->get<bool>();
        }
    }

    void milliseconds(const char* name, std::optional<vmm::Duration>& to) {
        const json* value = find(name);
        if (value == nullptr) {
            return;
        }
        const double ms = value->is_number() ? value->get<double>() : 0;
        if (!(ms > 0) || ms > kMaxMilliseconds) {
            return refuse(name, "must be a number of milliseconds above 0, a year at most");
        }
        to = vmm::Duration{static_cast<std::int64_t>(std::ceil(ms * 1e6))};
    }

    void count(const char* name, std::uint64_t low, std::uint64_t high, std::optional<std::uint64_t>& to) {
        const json* value = find(name);
        if (value == nullptr) {
            return;
        }
        if (!value->is_number_unsigned() || value->get<std::uint64_t>() < low ||
            value->get<std::uint64_t>() > high) {
            return refuse(name, fmt::format("must be a whole number from {} to {}", low, high));
        }
        to = value->get<std::uint64_t>();
    }

    // True for `second`, false for `first` and where nothing is given.
    bool choice(const char* name, const char* first, const char* second) {
        const json* value = find(name);
        if (value == nullptr || *value == first) {
            return false;
        }
        if (*value != second) {
            refuse(name, fmt::format("must be \"{}\" or \"{}\"", first, second));
        }
        return true;
    }

    void refuse(const char* name, std::string_view why) {
        if (fault_.empty()) {
            fault_ = fmt::format("argument \"{}\" {}", name, why);
        }
    }

    template <typename T>
    Result<RequestBody> finish(T request) {
        for (const auto& item : object_.items()) {
            if (known_.find(item.key()) == known_.end() && fault_.empty()) {
                fault_ = fmt::format("argument \"{}\" is not known here", item.key().substr(0, 64));
            }
        }
        if (!fault_.empty()) {
            return fail(Code::invalid, "{}", fault_);
        }
        return RequestBody{std::move(request)};
    }

  private:
    const json& object_;
    std::set<std::string, std::less<>> known_;
    std::string fault_;
};

Result<RequestBody> parse_migrate(Arguments arguments) {
    MigrateRequest request;
    arguments.address("to", request.to);
    arguments.link(request.link);
    std::optional<vmm::Duration> max_downtime;
    std::optional<vmm::Duration> max_pause;
    arguments.milliseconds("max_downtime_ms", max_downtime);
    arguments.milliseconds("max_pause_ms", max_pause);
    arguments.milliseconds("timeout_ms", request.options.timeout);
    arguments.milliseconds("retry_ms", request.options.retry);
    migration::Limits& limits = request.options.limits;
    limits.max_downtime = max_downtime.value_or(limits.max_downtime);
    limits.max_pause = max_pause.value_or(migration::default_max_pause(limits.max_downtime));
    if (limits.max_pause < limits.max_downtime) {
        arguments.refuse("max_pause_ms", "must not be less than max_downtime_ms");
    }
    arguments.count("max_bandwidth", 1, UINT64_MAX, request.options.max_bandwidth);
    std::optional<std::uint64_t> streams;
    arguments.count("streams", 0, migration::kMaxStreams, streams);
    request.options.streams = static_cast<std::uint16_t>(streams.value_or(request.options.streams));
    if (arguments.choice("on_stall", "switch", "abort")) {
        limits.on_stall = migration::OnStall::abort;
    }
    request.options.verify_full = arguments.choice("verify", "digest", "full");
    arguments.fault("fault", request.fault);
    return arguments.finish(std::move(request));
}

Result<RequestBody> parse_body(const json& object) {
    const auto command = object.find("command");
    if (command == object.end() || !command->is_string()) {
        return fail(Code::invalid, "the request has no \"command\"");
    }
    const std::string& name = command->get_ref<const std::string&>();
    Arguments arguments{object};
    if (name == "status") {
        return arguments.finish(StatusRequest{});
    }
    if (name == "pause") {
        return arguments.finish(PauseRequest{});
    }
    if (name == "resume") {
        return arguments.finish(ResumeRequest{});
    }
    if (name == "stop") {
        return arguments.finish(StopRequest{});
    }
    if (name == "events") {
        return arguments.finish(EventsRequest{});
    }
    if (name == "cancel") {
        return arguments.finish(CancelRequest{});
    }
    if (name == "migrate") {
        return parse_migrate(std::move(arguments));
    }
    if (name == "preflight") {
        PreflightRequest request;
        arguments.address("to", request.to);
        arguments.link(request.link);
        return arguments.finish(std::move(request));
    }
    if (name == "resolve") {
        if (arguments.find("resolution") == nullptr) {
            arguments.refuse("resolution", "must be \"resume\" or \"discard\"");
        }
        const bool discard = arguments.choice("resolution", "resume", "discard");
        return arguments.finish(
            ResolveRequest{discard ? migration::Resolution::discard : migration::Resolution::resume});
    }
    return fail(Code::invalid, "there is no command \"{}\"", name.substr(0, 64));
}

void add_link(json& object, const LinkOptions& link) {
    if (!link.tls_dir.empty()) {
        object["tls_dir"] = link.tls_dir;
    }
    if (link.tls_peer) {
        object["tls_peer"] = link.tls_peer->text();
    }
    if (link.insecure) {
        object["insecure"] = true;
    }
}

}  // namespace

ParsedRequest parse_request(std::string_view line) {
    const json object = json::parse(line, nullptr, false);
    if (!object.is_object()) {
        return {nullptr, fail(Code::invalid, "the request is not a JSON object")};
    }
    json id;
    if (const auto found = object.find("id"); found != object.end() && !found->is_null()) {
        if (!found->is_string() && !found->is_number_integer()) {
            return {nullptr, fail(Code::invalid, "\"id\" must be text or a whole number")};
        }
        id = *found;
    }
    return {std::move(id), parse_body(object)};
}

json to_json(const PreflightRequest& request) {
    json object{{"command", "preflight"}, {"to", request.to.text()}};
    add_link(object, request.link);
    return object;
}

json to_json(const MigrateRequest& request) {
    const migration::SourceOptions& options = request.options;
    json object{{"command", "migrate"},
                {"to", request.to.text()},
                {"max_downtime_ms", vmm::to_ms(options.limits.max_downtime)},
                {"max_pause_ms", vmm::to_ms(options.limits.max_pause)},
                {"streams", options.streams},
                {"on_stall", options.limits.on_stall == migration::OnStall::abort ? "abort" : "switch"},
                {"verify", options.verify_full ? "full" : "digest"}};
    if (options.max_bandwidth) {
        object["max_bandwidth"] = *options.max_bandwidth;
    }
    if (options.timeout) {
        object["timeout_ms"] = vmm::to_ms(*options.timeout);
    }
    if (options.retry) {
        object["retry_ms"] = vmm::to_ms(*options.retry);
    }
    if (request.fault) {
        object["fault"] = request.fault->text();
    }
    add_link(object, request.link);
    return object;
}

std::string line_of(const json& object) {
    return object.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string ok_line(const json& id, json results) {
    results["ok"] = true;
    if (!id.is_null()) {
        results["id"] = id;
    }
    return line_of(results);
}

std::string error_line(const json& id, const migration::Reason& error) {
    json reply{{"ok", false}, {"error", migration::to_json(error)}};
    if (!id.is_null()) {
        reply["id"] = id;
    }
    return line_of(reply);
}

std::string one_line(const migration::Reason& reason) {
    std::string line = reason.what;
    if (!reason.where.empty()) {
        line += fmt::format(" ({})", reason.where);
    }
    if (!reason.remedy.empty()) {
        line += fmt::format("; {}", reason.remedy);
    }
    return line;
}

}  // namespace tools
