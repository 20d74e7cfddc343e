// vmm cancel: ends a migration before the guest is handed over; returns when the guest is as before.
#include "tools/vmm/client_command.hpp"

namespace tools {

void add_cancel(Commands& commands) {
    add_plain_request(commands, "cancel", "Cancel the migration that is under way; the guest goes on here");
}

}  // namespace tools
