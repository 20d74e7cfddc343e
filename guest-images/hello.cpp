// Boots, says so, and leaves: the smallest guest. With wait=1 or run_ms=N it stays for commands.

#include "runtime/guest.hpp"

namespace workload {

extern "C" const char workload_name[] = "hello";

void start(const guest::Parameters& parameters, guest::Fields& ready) {
    const uint64_t wait = parameters.number("wait", 0);
    ready.number("wait", wait);
    if (wait == 0 && parameters.number("run_ms", 0) == 0) {
        guest::request_finish();
    }
}

void step() {
}

void report(guest::Fields&) {
}

bool verify(guest::Fields&) {
    return true;
}

}  // namespace workload
