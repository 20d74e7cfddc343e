#include "tools/vmm/guest_options.hpp"

#include "tools/vmm/parse.hpp"

namespace tools {

std::string not_empty(const std::string& text) {
    return text.empty() ? "the path is empty; leave the option out for the default" : "";
}

void add_guest_options(CLI::App* app, std::string& name, GuestOptions& options, DeviceSide side) {
    add_value(app, "--serial", options.serial, devices::parse_serial,
              "Where the serial port goes: stdio, null, file:PATH or unix:PATH (stdio, with Ctrl-] to quit)");
    add_device_options(app, options.devices, side);
    add_value(app, "--name", name, parse_guest_name, "Name of the guest");
    app->add_option("--control", options.control, "Path of the control socket, instead of one by name")
        ->check(not_empty);
    add_value(app, "--backing", options.backing, parse_backing,
              "Backing of memory: thp, small or hugetlb (thp)");
    app->add_option("--state-dir", options.state_dir,
                    "Directory of handover records, instead of one beside the sockets")
        ->check(not_empty);
    app->add_option("--user", options.sandbox.user,
                    "After set-up go on as this user; only root can (docs/sandbox.md)")
        ->check([](const std::string& text) {
            return text.empty() ? "no user is named; leave the option out to stay who you are" : "";
        });
    app->add_flag("!--no-sandbox", options.sandbox.filtered,
                  "Allow the process all system calls and descriptors, to debug it");
}

}  // namespace tools
