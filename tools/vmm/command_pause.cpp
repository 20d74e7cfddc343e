// vmm pause: stops the guest's vCPUs; waits behind a handover.
#include "tools/vmm/client_command.hpp"

namespace tools {

void add_pause(Commands& commands) {
    add_plain_request(commands, "pause",
                      "Stop the guest's vCPUs until it is resumed; a paused guest migrates too");
}

}  // namespace tools
