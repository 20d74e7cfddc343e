// vmm events: what happens to a guest, one JSON object a line, until it ends.
#include <cstdio>

#include "tools/vmm/client_command.hpp"
#include "tools/vmm/control_protocol.hpp"
#include "tools/vmm/text_output.hpp"

namespace tools {

using nlohmann::json;

namespace {

vmm::Result<int> events(const std::string& name) {
    ControlClient guest = TRY(ControlClient::connect(name));
    TRY(guest.call({{"command", "events"}}, kPromptReply));
    for (;;) {
        const json event = TRY(guest.receive());
        print("{}\n", line_of(event));
        if (std::fflush(stdout) != 0 || text_of(event, "event") == "guest_ended") {
            return 0;
        }
    }
}

}  // namespace

void add_events(Commands& commands) {
    CLI::App* app = commands.app.add_subcommand(
        "events", "Print events as JSON lines until the guest ends or has moved away");
    auto options = std::make_shared<ClientOptions>();
    add_name(app, *options);
    app->add_flag("--json", options->json, "The same: events are JSON lines in any case (docs/json.md)");
    app->callback([&commands, options] {
        commands.chosen = [options] { return report("events", events(options->name)); };
    });
}

}  // namespace tools
