// The sub-commands: each adds itself to the command line and, once chosen, is run after all of it was read.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "migration/event.hpp"

namespace tools {

inline constexpr int kUsageStatus = 2;

struct Commands {
    CLI::App& app;
    migration::EventSink* extra = nullptr;
    std::function<int()> chosen;
};

void add_run(Commands& commands);
void add_receive(Commands& commands);
void add_migrate(Commands& commands);
void add_cancel(Commands& commands);
void add_resolve(Commands& commands);
void add_preflight(Commands& commands);
void add_status(Commands& commands);
void add_list(Commands& commands);
void add_pause(Commands& commands);
void add_resume(Commands& commands);
void add_stop(Commands& commands);
void add_events(Commands& commands);

// An option or argument whose text `parse` turns into a value; what it refuses is an error of usage in its
// words.
template <typename T, typename Parse>
CLI::Option* add_value(CLI::App* app, const std::string& name, T& target, Parse parse,
                       const std::string& help) {
    // CLI11 calls the function only for text that has passed the check.
    return app
        ->add_option_function<std::string>(
            name, [&target, parse](const std::string& text) { target = *parse(text); }, help)
        ->check([parse](const std::string& text) {
            const auto value = parse(text);
            return value ? std::string{} : value.error().text();
        });
}

}  // namespace tools
