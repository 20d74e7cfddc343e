// vmm list: the guests of this user on this host.
#include "tools/vmm/client_command.hpp"
#include "tools/vmm/control_protocol.hpp"
#include "tools/vmm/places.hpp"
#include "tools/vmm/text_output.hpp"

namespace tools {

using nlohmann::json;

namespace {

constexpr vmm::Duration kPatience = std::chrono::seconds{2};

// Nothing for a socket that a dead process left.
json entry_of(const std::string& path) {
    auto guest = ControlClient::connect(path);
    if (!guest) {
        return nullptr;
    }
    const auto reply = guest->call({{"command", "status"}}, kPatience);
    if (!reply) {
        log_line("list: {}: {}", path, reply.error().text());
        return nullptr;
    }
    const json& status = field(*reply, "status");
    json entry{{"control", path}};
    for (const char* name : {"name", "pid", "state", "memory_bytes", "vcpus", "role", "peer", "uptime_ms"}) {
        entry[name] = field(status, name);
    }
    return entry;
}

void print_table(const json& guests) {
    if (guests.empty()) {
        fmt::print("no guests in {}\n", runtime_directory());
        return;
    }
    fmt::print("{:<20} {:<16} {:>8} {:>10} {:>6} {:<12} {}\n", "NAME", "STATE", "PID", "MEMORY", "VCPUS",
               "ROLE", "PEER");
    for (const json& guest : guests) {
        fmt::print("{:<20} {:<16} {:>8} {:>10} {:>6} {:<12} {}\n", text_of(guest, "name"),
                   text_of(guest, "state"), number_text(guest, "pid"), bytes_text(guest, "memory_bytes"),
                   number_text(guest, "vcpus"), text_of(guest, "role"), text_of(guest, "peer"));
    }
}

int list(const ClientOptions& options) {
    json guests = json::array();
    for (const std::string& path : control_sockets()) {
        if (json entry = entry_of(path); !entry.is_null()) {
            guests.push_back(std::move(entry));
        }
    }
    if (options.json) {
        fmt::print("{}\n", line_of({{"guests", guests}}));
    } else {
        print_table(guests);
    }
    return 0;
}

}  // namespace

void add_list(Commands& commands) {
    CLI::App* app = commands.app.add_subcommand("list", "List the guests of this user on this host");
    auto options = std::make_shared<ClientOptions>();
    add_json(app, *options);
    app->callback([&commands, options] { commands.chosen = [options] { return list(*options); }; });
}

}  // namespace tools
