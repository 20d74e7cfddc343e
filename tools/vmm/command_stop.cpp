// vmm stop: ends the guest, as SIGTERM to its process does; waits behind a handover.
#include "tools/vmm/client_command.hpp"

namespace tools {

void add_stop(Commands& commands) {
    add_plain_request(commands, "stop", "End the guest at once");
}

}  // namespace tools
