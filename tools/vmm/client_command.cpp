#include "tools/vmm/client_command.hpp"

namespace tools {

void add_plain_request(Commands& commands, const char* name, const char* help) {
    CLI::App* app = commands.app.add_subcommand(name, help);
    auto options = std::make_shared<ClientOptions>();
    add_name(app, *options);
    app->callback([&commands, options, name] {
        commands.chosen = [options, name] {
            return report(name, [&]() -> vmm::Result<int> {
                ControlClient guest = TRY(ControlClient::connect(options->name));
                TRY(guest.call({{"command", name}}));
                return 0;
            }());
        };
    });
}

}  // namespace tools
