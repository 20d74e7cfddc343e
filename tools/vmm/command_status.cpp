// vmm status: what a guest is, and what it is doing.
#include "tools/vmm/client_command.hpp"
#include "tools/vmm/control_protocol.hpp"
#include "tools/vmm/text_output.hpp"

namespace tools {

using nlohmann::json;

namespace {

void print_status(const json& status) {
    const auto row = [&](const char* title, const std::string& value) { print("{:<12}{}\n", title, value); };
    const auto number = [&](const char* name) { return number_text(status, name); };
    row("name", text_of(status, "name"));
    row("state", text_of(status, "state"));
    row("uuid", text_of(status, "uuid"));
    row("pid", number("pid"));
    row("memory", bytes_text(status, "memory_bytes"));
    row("vcpus", number("vcpus"));
    row("uptime", milliseconds_text(status, "uptime_ms"));
    row("resets", fmt::format("{}, after {} triple faults", number("resets"), number("triple_faults")));
    if (const json& stray = field(status, "unassigned_accesses"); stray.is_object()) {
        row("unassigned", fmt::format("{} port and {} memory accesses that no device answered",
                                      number_text(stray, "ports"), number_text(stray, "memory")));
    }
    const std::string user = text_of(status, "user");
    row("sandbox", text_of(status, "sandbox") + (user.empty() ? "" : ", as user " + user));
    row("role", text_of(status, "role"));
    if (!text_of(status, "peer").empty()) {
        row("peer", text_of(status, "peer"));
    }
    const json& migration = field(status, "migration");
    if (migration.is_object()) {
        const json& report = field(migration, "report");
        const std::string result = text_of(report, "result");
        row("migration", fmt::format("to {}, phase {}, {}", text_of(migration, "peer"),
                                     text_of(migration, "phase"), result.empty() ? "under way" : result));
    }
}

vmm::Result<int> status(const ClientOptions& options) {
    ControlClient guest = TRY(ControlClient::connect(options.name));
    const json reply = TRY(guest.call({{"command", "status"}}, kPromptReply));
    if (options.json) {
        print("{}\n", line_of(field(reply, "status")));
    } else {
        print_status(field(reply, "status"));
    }
    return 0;
}

}  // namespace

void add_status(Commands& commands) {
    CLI::App* app = commands.app.add_subcommand("status", "Show what a guest is and what it is doing");
    auto options = std::make_shared<ClientOptions>();
    add_name(app, *options);
    add_json(app, *options);
    app->callback(
        [&commands, options] { commands.chosen = [options] { return report("status", status(*options)); }; });
}

}  // namespace tools
