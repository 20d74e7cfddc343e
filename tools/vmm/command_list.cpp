// vmm list: the guests of this user on this host.
#include <filesystem>

#include "tools/vmm/client_command.hpp"
#include "tools/vmm/control_protocol.hpp"
#include "tools/vmm/places.hpp"
#include "tools/vmm/text_output.hpp"

namespace tools {

using nlohmann::json;

namespace {

constexpr vmm::Duration kPatience = std::chrono::seconds{2};

// Null for a socket that a dead process left. Of a guest that cannot be asked only the name is known.
json entry_of(const std::string& path) {
    bool alive = true;
    const auto reply = [&]() -> vmm::Result<json> {
        auto guest = ControlClient::connect(path);
        alive = guest || guest.error().code() != vmm::Code::closed;
        return TRY(std::move(guest)).call({{"command", "status"}}, kPatience);
    }();
    if (!alive || (!reply && reply.error().code() == vmm::Code::closed)) {
        return nullptr;
    }
    json entry{{"control", path}};
    for (const char* name : {"name", "pid", "state", "memory_bytes", "vcpus", "role", "peer", "uptime_ms"}) {
        entry[name] = reply ? field(field(*reply, "status"), name) : json(nullptr);
    }
    if (!reply) {
        log_line("list: {}: {}", path, reply.error().text());
        entry["name"] = std::filesystem::path{path}.stem().string();
    }
    return entry;
}

// "-" for what is unknown, but for the peer: most guests have none.
std::string known(const json& guest, const char* name) {
    return field(guest, name).is_null() ? "-" : text_of(guest, name);
}

void print_table(const json& guests) {
    if (guests.empty()) {
        print("no guests in {}\n", runtime_directory());
        return;
    }
    print("{:<20} {:<16} {:>8} {:>10} {:>6} {:<12} {}\n", "NAME", "STATE", "PID", "MEMORY", "VCPUS", "ROLE",
          "PEER");
    for (const json& guest : guests) {
        print("{:<20} {:<16} {:>8} {:>10} {:>6} {:<12} {}\n", text_of(guest, "name"), known(guest, "state"),
              number_text(guest, "pid"), bytes_text(guest, "memory_bytes"), number_text(guest, "vcpus"),
              known(guest, "role"), text_of(guest, "peer"));
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
        print("{}\n", line_of({{"guests", guests}}));
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
