// vmm preflight: would the guest move to that host, what forbids it, and how long would it take.
#include "migration/transport_socket.hpp"
#include "tools/vmm/client_command.hpp"
#include "tools/vmm/control_protocol.hpp"
#include "tools/vmm/text_output.hpp"

namespace tools {

using nlohmann::json;

namespace {

struct PreflightOptions {
    ClientOptions client;
    migration::Address to;
};

void print_reasons(const char* title, const json& reasons) {
    for (const json& reason : reasons) {
        fmt::print("{}: {}\n", title,
                   one_line({text_of(reason, "code"), text_of(reason, "what"), text_of(reason, "where"),
                             text_of(reason, "do")}));
    }
}

void print_preflight(const json& preflight) {
    fmt::print("{}\n", field(preflight, "would_migrate") == true ? "would migrate" : "would not migrate");
    print_reasons("reason", field(preflight, "reasons"));
    print_reasons("warning", field(preflight, "warnings"));
    if (field(preflight, "link_mib_s").is_number()) {
        fmt::print(
            "{} of {} memory in use, link {:.0f} MiB/s, round trip {}: about {} for one pass over it\n",
            bytes_text(preflight, "used_bytes"), bytes_text(preflight, "memory_bytes"),
            field(preflight, "link_mib_s").get<double>(), milliseconds_text(preflight, "round_trip_ms"),
            milliseconds_text(preflight, "estimated_ms"));
    }
}

vmm::Result<int> preflight(const PreflightOptions& options) {
    ControlClient guest = TRY(ControlClient::connect(options.client.name));
    const json reply = TRY(guest.call({{"command", "preflight"}, {"to", options.to.text()}}));
    const json& result = field(reply, "preflight");
    if (options.client.json) {
        fmt::print("{}\n", line_of(result));
    } else {
        print_preflight(result);
    }
    return field(result, "would_migrate") == true ? 0 : kRefusedStatus;
}

}  // namespace

void add_preflight(Commands& commands) {
    CLI::App* app = commands.app.add_subcommand(
        "preflight",
        "Ask a destination whether it would take the guest, and measure the link; the guest runs on");
    app->footer("The status is 0 when the guest would migrate and 1 when it would not.");
    auto options = std::make_shared<PreflightOptions>();
    add_name(app, options->client);
    add_value(app, "DESTINATION", options->to, migration::Address::parse, "tcp:ADDR:PORT of `vmm receive`")
        ->required();
    add_json(app, options->client);
    app->callback([&commands, options] {
        commands.chosen = [options] { return report("preflight", preflight(*options)); };
    });
}

}  // namespace tools
