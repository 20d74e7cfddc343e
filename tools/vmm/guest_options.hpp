// The options that `run` and `receive` share.
#pragma once

#include "tools/vmm/commands.hpp"
#include "tools/vmm/device_options.hpp"
#include "tools/vmm/guest_process.hpp"

namespace tools {

// Checks the path of an option that may be left out.
std::string not_empty(const std::string& text);

void add_guest_options(CLI::App* app, std::string& name, GuestOptions& options, DeviceSide side);

}  // namespace tools
