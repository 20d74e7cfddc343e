#pragma once

#include <stdint.h>

#include "runtime/text.hpp"

// What a guest defines. All of it runs at CPL 3 with interrupts on.
namespace workload {

// The first word of every line of output.
extern "C" const char workload_name[];

// Reads the parameters, prepares memory, and adds what it chose to the `ready` line.
void start(const guest::Parameters& parameters, guest::Fields& ready);

// One short piece of work (some tens of microseconds at most), called for ever.
void step();

// Adds the counters that `status`, `check` and PASS print.
void report(guest::Fields& fields);

// The full self-check: false fails the guest. Adds what it found; on failure reason=.. comes first.
bool verify(guest::Fields& findings);

}  // namespace workload

// What the runtime offers to guests.
namespace guest {

// Prints `<guest> <verb> k=v ..`; the bytes leave one per iteration of the main loop.
void say(const char* verb, const Fields& fields);

// Prints FAIL with the fields and leaves through the exit port with status 17.
[[noreturn]] void fail(const Fields& fields);

// Makes the main loop run `finish` in its next iteration.
void request_finish();

}  // namespace guest
