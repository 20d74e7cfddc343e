// Whether the paths of the command line can be used, asked before anything depends on them: at the start, and
// when a guest asks to come. What is found may change until they are used.
#pragma once

#include <string>

#include "devices/serial_backend.hpp"
#include "migration/message.hpp"
#include "tools/vmm/guest_process.hpp"

namespace tools {

// A Unix socket can be made at `path`, or one of a process that died be replaced; `what` it is for.
vmm::Result<void> check_socket_path(const std::string& path, const char* what);

// Where the control socket of a guest of that name goes; the runtime directory is made if it is needed.
vmm::Result<std::string> control_place(const GuestOptions& options, const std::string& name);

// `in_use`: whether it counts that another process listens there.
vmm::Result<void> check_serial(const devices::SerialConfig& config, bool in_use);

// The back ends of the serial port and the consoles, together. Disks and taps say for themselves what is
// wrong with them.
vmm::Result<void> check_back_ends(const GuestOptions& options);

// The record directory; made if it is missing.
vmm::Result<void> check_records(const std::string& path);

// What a preflight says of such an error: our texts end with what to do.
migration::Reason reason_from(std::string code, const vmm::Error& error, std::string where);

}  // namespace tools
