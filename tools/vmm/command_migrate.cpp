// vmm migrate: asks a guest's process to move the guest, shows how that goes, and reports how it went. The
// migration is the guest's: it goes on when this client vanishes.
#include <poll.h>
#include <unistd.h>

#include "tools/vmm/client_command.hpp"
#include "tools/vmm/control_protocol.hpp"
#include "tools/vmm/faults.hpp"
#include "tools/vmm/parse.hpp"
#include "tools/vmm/progress_line.hpp"
#include "tools/vmm/signals.hpp"
#include "tools/vmm/text_output.hpp"

namespace tools {

using nlohmann::json;
using vmm::Code;
using vmm::Result;

namespace {

constexpr int kCancelledStatus = 3;
constexpr int kUnknownStatus = 4;

struct MigrateOptions {
    ClientOptions client;
    std::optional<vmm::Duration> max_pause;
    std::optional<vmm::Duration> timeout;
    std::optional<vmm::Duration> retry;
    std::uint64_t max_bandwidth = 0;
    std::uint64_t streams = 1;
    MigrateRequest request;
};

Result<migration::OnStall> parse_on_stall(std::string_view text) {
    if (text == "switch") {
        return migration::OnStall::switch_over;
    }
    if (text == "abort") {
        return migration::OnStall::abort;
    }
    return vmm::fail(Code::invalid, "\"{}\" is neither switch nor abort", text);
}

Result<bool> parse_verify(std::string_view text) {
    if (text != "digest" && text != "full") {
        return vmm::fail(Code::invalid, "\"{}\" is neither digest nor full", text);
    }
    return text == "full";
}

MigrateRequest request_of(const MigrateOptions& options) {
    MigrateRequest request = options.request;
    migration::Limits& limits = request.options.limits;
    limits.max_pause = options.max_pause.value_or(migration::default_max_pause(limits.max_downtime));
    request.options.timeout = options.timeout;
    request.options.retry = options.retry;
    request.options.streams = static_cast<std::uint16_t>(options.streams);
    if (options.max_bandwidth != 0) {
        request.options.max_bandwidth = options.max_bandwidth;
    }
    return request;
}

// Takes events until the reply; a signal asks for a cancellation, whose own reply is of no interest: the
// report says whether it came in time. A second signal ends the waiting: the process may never answer.
Result<json> follow(ControlClient& guest, const EndSignals& signals, ProgressLine& progress) {
    bool asked_to_cancel = false;
    for (;;) {
        while (const auto object = TRY(guest.next())) {
            if (object->contains("event")) {
                progress.show(*object);
            } else if (field(*object, "id") == "migrate") {
                return *object;
            } else if (field(*object, "ok") != true) {
                progress.clear();
                log_line("cancel: {}", error_of(*object).text());
            }
        }
        std::array<pollfd, 2> entries{{{guest.fd(), POLLIN, 0}, {signals.fd(), POLLIN, 0}}};
        if (::poll(entries.data(), entries.size(), -1) < 0 && errno != EINTR) {
            return vmm::fail_errno(Code::io, "poll");
        }
        while (signals.take()) {
            if (std::exchange(asked_to_cancel, true)) {
                return vmm::fail(Code::cancelled, "this client left before the guest's process answered");
            }
            TRY(guest.send({{"id", "cancel"}, {"command", "cancel"}}));
        }
        if (entries[0].revents != 0) {
            TRY(guest.fill());
        }
    }
}

int status_of(const std::string& result) {
    if (result == "completed") {
        return 0;
    }
    return result == "cancelled" ? kCancelledStatus : result == "unknown" ? kUnknownStatus : kRefusedStatus;
}

void print_report(const json& report, const std::string& name, const migration::Address& to) {
    const std::string result = text_of(report, "result");
    for (const json& warning : field(report, "warnings")) {
        log_line("warning: {}", error_of({{"error", warning}}).text());
    }
    for (const json& reason : field(report, "reasons")) {
        log_line("migrate: {}", error_of({{"error", reason}}).text());
    }
    if (result == "completed") {
        print(
            "{} runs at {} now: total {}, downtime {} (predicted {}), {} rounds, {} sent, memory verified\n",
            name, to.text(), milliseconds_text(report, "total_ms"), milliseconds_text(report, "downtime_ms"),
            milliseconds_text(report, "predicted_downtime_ms"), field(report, "rounds").size(),
            bytes_text(report, "bytes_sent"));
        for (const json& resumed : field(report, "resumes")) {
            print("the connection was back after {}: {} MiB had been kept\n",
                  milliseconds_text(resumed, "outage_ms"),
                  field(resumed, "kept_pages").get<std::uint64_t>() * vmm::kPageSize >> 20);
        }
    } else {
        print("{}: {}\n", name,
              result == "unknown" ? "the outcome is unknown; the guest stays paused here"
                                  : result + "; the guest stays here");
    }
}

// The report of a migration that never began: nobody was asked, or the guest's process says so, in its words.
json failed_report(const migration::Reason& reason) {
    migration::Report report;
    report.outcome = migration::Outcome::failed;
    report.reasons = {reason};
    return migration::to_json(report);
}

// The report of a migration of which nothing more is heard.
json lost(const vmm::Error& error, const std::string& name) {
    migration::Report report;
    report.outcome = migration::Outcome::unknown;
    report.reasons = {{error.code() == Code::closed ? "source_gone" : "no_answer", error.text(), name,
                       "look where the guest runs: `vmm list` here and there"}};
    return migration::to_json(report);
}

int migrate(const MigrateOptions& options) {
    ProgressLine progress{::isatty(STDERR_FILENO) == 1};
    const MigrateRequest request = request_of(options);
    if (request.options.limits.max_pause < request.options.limits.max_downtime) {
        log_line(
            "--max-pause is shorter than --max-downtime (300ms unless given), so every pause would be given "
            "up; see `vmm migrate "
            "--help`");
        return kUsageStatus;
    }
    const std::string& name = options.client.name;
    bool asked = false;
    const auto reply = [&]() -> Result<json> {
        const EndSignals signals = TRY(EndSignals::block());
        ControlClient guest = TRY(ControlClient::connect(name));
        json message = to_json(request);
        message["id"] = "migrate";
        TRY(guest.send(message));
        asked = true;
        return follow(guest, signals, progress);
    }();
    progress.clear();
    const bool begun = reply && field(*reply, "ok") == true;
    json report;
    if (begun) {
        report = field(*reply, "report");
    } else if (reply) {
        report = failed_report(reason_of(field(*reply, "error")));
    } else {
        report = asked ? lost(reply.error(), name) : failed_report(reason_of(reply.error(), name));
    }
    if (options.client.json) {
        print("{}\n", line_of(report));
    } else if (!begun) {
        log_line("migrate: {}", reply ? error_of(*reply).text() : reply.error().text());
    } else {
        print_report(report, name, request.to);
    }
    return status_of(text_of(report, "result"));
}

}  // namespace

void add_migrate(Commands& commands) {
    CLI::App* app =
        commands.app.add_subcommand("migrate", "Move a running guest to a host where `vmm receive` listens");
    app->footer(
        "The status is 0 when it completed, 1 when it failed and 3 when it was cancelled (the guest goes on "
        "here), 2 for\n"
        "wrong usage, 4 when the outcome is unknown (the guest stays paused here; see `vmm resolve "
        "--help`).\n"
        "Ctrl-C cancels; a second one leaves without waiting. When this client vanishes the migration goes "
        "on, and `vmm status` shows it.");
    auto options = std::make_shared<MigrateOptions>();
    MigrateRequest& request = options->request;
    add_name(app, options->client);
    add_value(app, "DESTINATION", request.to, migration::Address::parse, "tcp:ADDR:PORT of `vmm receive`")
        ->required();
    add_link_options(
        app, request.link,
        "Who must be there: a name, an address or sha256:HEX of its certificate (the host of DESTINATION)");
    add_value(app, "--max-downtime", request.options.limits.max_downtime, parse_duration,
              "Longest predicted downtime to switch over at (300ms)");
    add_value(app, "--max-pause", options->max_pause, parse_duration,
              "Give up and resume when the pause takes longer (1s or 4 x max-downtime, the longer)");
    add_value(app, "--max-bandwidth", options->max_bandwidth, parse_bandwidth,
              "Bytes/s while the guest runs; with K, M, G, or in bits as 10Gbit");
    add_value(
        app, "--streams", options->streams,
        [](const std::string& text) { return parse_count(text, 0, migration::kMaxStreams); },
        "Data connections; 0 sends pages on the control connection (1)");
    add_value(app, "--on-stall", request.options.limits.on_stall, parse_on_stall,
              "When rounds stop shrinking: switch over, if --max-pause allows, or abort (switch)");
    add_value(app, "--verify", request.options.verify_full, parse_verify,
              "digest, or full: hash all memory afresh on both sides in the pause (digest)");
    add_value(
        app, "--retry", options->retry, parse_duration,
        "When the connection breaks before the switch-over, try so long to come back and go on with what has "
        "arrived (not at all)");
    add_value(app, "--fault", request.fault, fault_of(migration::Role::source), kFaultHelp);
    add_value(app, "--timeout", options->timeout, parse_duration, "Give up when it takes longer (never)");
    add_json(app, options->client);
    app->callback([&commands, options] { commands.chosen = [options] { return migrate(*options); }; });
}

}  // namespace tools
