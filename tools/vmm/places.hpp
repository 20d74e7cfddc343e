// Where the processes of one user find each other: control sockets by the names of guests, and handover
// records.
#pragma once

#include <string>
#include <vector>

#include "vmm/base/result.hpp"

namespace tools {

// $XDG_RUNTIME_DIR/vmm, else /run/vmm.
std::string runtime_directory();

// The same, made (0700) when it is missing. It must be ours, and nobody else may write in it.
vmm::Result<std::string> open_runtime_directory();

// NAME of the command line: a guest's name, or, with a slash in it, the path of its control socket.
std::string control_path(const std::string& name);

// Paths of all sockets in the runtime directory, sorted; those of dead processes too.
std::vector<std::string> control_sockets();

// `given` if it is not empty, else the directory `records` in the runtime directory.
vmm::Result<std::string> state_directory(const std::string& given);

}  // namespace tools
