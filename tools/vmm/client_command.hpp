// What the commands that ask a running guest have in common.
#pragma once

#include <memory>

#include "tools/vmm/commands.hpp"
#include "tools/vmm/control_client.hpp"
#include "tools/vmm/log.hpp"

namespace tools {

inline constexpr int kRefusedStatus = 1;

struct ClientOptions {
    std::string name;
    bool json = false;
};

inline void add_name(CLI::App* app, ClientOptions& options) {
    app->add_option("NAME", options.name, "Name of the guest, or path of its control socket")->required();
}

inline void add_json(CLI::App* app, ClientOptions& options) {
    app->add_flag("--json", options.json, "Print one JSON object (docs/json.md)");
}

// The status of a command: an error goes to standard error, in one line.
inline int report(const char* command, const vmm::Result<int>& status) {
    if (!status) {
        log_line("{}: {}", command, status.error().text());
        return kRefusedStatus;
    }
    return *status;
}

// A command that only asks: `request`, without further arguments, whenever that may be answered.
void add_plain_request(Commands& commands, const char* name, const char* help);

}  // namespace tools
