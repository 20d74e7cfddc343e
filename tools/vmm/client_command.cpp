#include "tools/vmm/client_command.hpp"

#include "migration/report.hpp"
#include "tools/vmm/control_protocol.hpp"
#include "tools/vmm/parse.hpp"
#include "tools/vmm/text_output.hpp"

namespace tools {

using nlohmann::json;

void add_name(CLI::App* app, ClientOptions& options) {
    app->add_option("NAME", options.name, "Name of the guest, or path of its control socket")
        ->required()
        ->check([](const std::string& text) {
            if (text.find('/') != std::string::npos) {
                return std::string{};
            }
            const auto name = parse_guest_name(text);
            return name ? std::string{} : name.error().text();
        });
}

Answer ask_guest(const std::string& name, const json& request) {
    bool asked = false;
    auto reply = [&]() -> vmm::Result<json> {
        ControlClient guest = TRY(ControlClient::connect(name));
        TRY(guest.greet());
        asked = true;
        return guest.exchange(request);
    }();
    return {std::move(reply), asked};
}

int order_guest(const char* command, const ClientOptions& options, const json& request) {
    const Answer answer = ask_guest(options.name, request);
    const bool done = answer.reply && field(*answer.reply, "ok") == true;
    json object{{"command", command}, {"done", done}, {"reasons", json::array()}};
    if (!done) {
        const migration::Reason reason = answer.reply ? reason_of(field(*answer.reply, "error"))
                                                      : reason_of(answer.reply.error(), options.name);
        object["reasons"].push_back(migration::to_json(reason));
        if (!answer.reply && answer.asked) {
            object["done"] = nullptr;  // it may have been, before the process ended
        }
        if (!options.json) {
            log_line("{}: {}", command, answer.reply ? one_line(reason) : answer.reply.error().text());
        }
    }
    if (options.json) {
        print("{}\n", line_of(object));
    }
    return done ? 0 : kRefusedStatus;
}

void add_plain_request(Commands& commands, const char* name, const char* help) {
    CLI::App* app = commands.app.add_subcommand(name, help);
    auto options = std::make_shared<ClientOptions>();
    add_name(app, *options);
    add_json(app, *options);
    app->callback([&commands, options, name] {
        commands.chosen = [options, name] { return order_guest(name, *options, {{"command", name}}); };
    });
}

}  // namespace tools
