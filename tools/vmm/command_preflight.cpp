// vmm preflight: would the guest move to that host, what forbids it, and how long would it take.
#include "migration/report.hpp"
#include "tools/vmm/client_command.hpp"
#include "tools/vmm/control_protocol.hpp"
#include "tools/vmm/text_output.hpp"

namespace tools {

using nlohmann::json;

namespace {

struct PreflightOptions {
    ClientOptions client;
    PreflightRequest request;
};

void print_reasons(const char* title, const json& reasons) {
    for (const json& reason : reasons) {
        print("{}: {}\n", title,
              one_line({text_of(reason, "code"), text_of(reason, "what"), text_of(reason, "where"),
                        text_of(reason, "do")}));
    }
}

void print_preflight(const json& preflight) {
    print("{}\n", field(preflight, "would_migrate") == true ? "would migrate" : "would not migrate");
    print_reasons("reason", field(preflight, "reasons"));
    print_reasons("warning", field(preflight, "warnings"));
    if (field(preflight, "link_mib_s").is_number()) {
        print("{} of {} memory in use, link {:.0f} MiB/s, round trip {}: about {} for one pass over it\n",
              bytes_text(preflight, "used_bytes"), bytes_text(preflight, "memory_bytes"),
              field(preflight, "link_mib_s").get<double>(), milliseconds_text(preflight, "round_trip_ms"),
              milliseconds_text(preflight, "estimated_ms"));
    }
}

// The answer of a guest that could not be asked, or that does not migrate now.
json refused_preflight(const migration::Reason& reason) {
    json object{{"would_migrate", false},
                {"reasons", json::array({migration::to_json(reason)})},
                {"warnings", json::array()}};
    for (const char* unknown : {"memory_bytes", "used_bytes", "round_trip_ms", "clock_difference_ms",
                                "link_mib_s", "estimated_ms"}) {
        object[unknown] = nullptr;
    }
    return object;
}

int preflight(const PreflightOptions& options) {
    const Answer answer = ask_guest(options.client.name, to_json(options.request));
    const bool answered = answer.reply && field(*answer.reply, "ok") == true;
    json result;
    if (answered) {
        result = field(*answer.reply, "preflight");
    } else {
        result = refused_preflight(answer.reply ? reason_of(field(*answer.reply, "error"))
                                                : reason_of(answer.reply.error(), options.client.name));
    }
    if (!answered && !options.client.json) {
        log_line("preflight: {}",
                 answer.reply ? error_of(*answer.reply).text() : answer.reply.error().text());
    } else if (options.client.json) {
        print("{}\n", line_of(result));
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
    add_value(app, "DESTINATION", options->request.to, migration::Address::parse,
              "tcp:ADDR:PORT of `vmm receive`")
        ->required();
    add_link_options(
        app, options->request.link,
        "Who must be there: a name, an address or sha256:HEX of its certificate (the host of DESTINATION)");
    add_json(app, options->client);
    app->callback([&commands, options] { commands.chosen = [options] { return preflight(*options); }; });
}

}  // namespace tools
