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

void add_name(CLI::App* app, ClientOptions& options);

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

// A reply whose arrival may take as long as a handover, or why there is none.
struct Answer {
    vmm::Result<nlohmann::json> reply;
    bool asked = false;  // whether the guest's process may have taken the request
};
Answer ask_guest(const std::string& name, const nlohmann::json& request);

// Asks for something that is done or not; the command's exit status.
int order_guest(const char* command, const ClientOptions& options, const nlohmann::json& request);

// A command that only asks: `request`, without further arguments, whenever that may be answered.
void add_plain_request(Commands& commands, const char* name, const char* help);

}  // namespace tools
