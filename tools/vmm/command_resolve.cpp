// vmm resolve: a person decides what a lost reply left open: who owns the guest.
#include "tools/vmm/client_command.hpp"

namespace tools {

namespace {

struct ResolveOptions {
    ClientOptions client;
    bool resume = false;
    bool discard = false;
};

}  // namespace

void add_resolve(Commands& commands) {
    CLI::App* app = commands.app.add_subcommand(
        "resolve", "Decide what becomes of a guest whose migration ended with an unknown outcome");
    app->footer("Find out at the destination first: a guest that runs in two places destroys its data.");
    auto options = std::make_shared<ResolveOptions>();
    add_name(app, options->client);
    add_json(app, options->client);
    CLI::Option_group* choice = app->add_option_group("decision");
    choice->add_flag("--resume", options->resume, "It does not run there, and never will: go on here");
    choice->add_flag("--discard", options->discard, "It runs there: free the copy here");
    choice->require_option(1);
    app->callback([&commands, options] {
        commands.chosen = [options] {
            return order_guest(
                "resolve", options->client,
                {{"command", "resolve"}, {"resolution", options->discard ? "discard" : "resume"}});
        };
    });
}

}  // namespace tools
