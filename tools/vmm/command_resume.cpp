// vmm resume: lets a paused guest go on; waits behind a handover.
#include "tools/vmm/client_command.hpp"

namespace tools {

void add_resume(Commands& commands) {
    add_plain_request(commands, "resume", "Let a paused guest go on");
}

}  // namespace tools
