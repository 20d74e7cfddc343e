// Does what no decent guest does, in the mode that `mode=` names, and checks that the machine stays one.

#include "hostile_mode.hpp"
#include "runtime/clock.hpp"
#include "runtime/cpu.hpp"
#include "runtime/memory.hpp"
#include "runtime/serial.hpp"

namespace hostile {

constinit bool strict = true;

namespace {

using guest::Fields;
using guest::Parameters;

constinit const Mode* mode = nullptr;

// Modes that end in ring 0, for good, after a while.
constinit uint64_t last_call = 0;
constinit uint64_t last_call_after = 0;

void start_to_end(const Parameters& parameters, Fields& ready) {
    const uint64_t after_ms = parameters.number("after_ms", 100);
    last_call_after = guest::tsc_from_us(after_ms * 1000);
    ready.number("after_ms", after_ms);
}

void step_to_end() {
    if (guest::watch().elapsed() >= last_call_after) {
        guest::serial::flush();
        guest::call_ring0(last_call);
    }
}

void report_nothing(Fields&) {
}

bool verify_nothing(Fields&) {
    return true;
}

constexpr Mode kTriple{"triple", start_to_end, step_to_end, report_nothing, verify_nothing};
constexpr Mode kHalt{"halt", start_to_end, step_to_end, report_nothing, verify_nothing};
constexpr const Mode* kModes[] = {&ports_mode,  &mmio_mode, &strings_mode, &storm_mode,
                                  &tables_mode, &kTriple,   &kHalt};

}  // namespace

void check_ones(const char* where, uint64_t address, uint64_t size, uint64_t value) {
    if (strict && value != ones(size)) {
        guest::fail(Fields()
                        .text("reason", "not_ones")
                        .text("where", where)
                        .hex("address", address)
                        .number("size", size)
                        .hex("got", value));
    }
}

uint64_t ram_end() {
    constexpr uint64_t kHole = 0xc0000000;
    constexpr uint64_t k4GiB = uint64_t{1} << 32;
    const uint64_t bytes = guest::memory().mib() << 20;
    return bytes <= kHole ? bytes : bytes - kHole + k4GiB;
}

}  // namespace hostile

namespace workload {

using namespace hostile;

extern "C" const char workload_name[] = "hostile";

void start(const guest::Parameters& parameters, guest::Fields& ready) {
    const char* name = parameters.word("mode", "ports");
    for (const Mode* candidate : kModes) {
        if (guest::equal(candidate->name, name)) {
            mode = candidate;
        }
    }
    if (mode == nullptr) {
        guest::fail(guest::Fields().text("reason", "bad_parameter").text("mode", name));
    }
    last_call = mode == &kTriple ? RING0_TRIPLE_FAULT : RING0_HALT_FOREVER;
    strict = parameters.number("strict", 1) != 0;
    ready.text("mode", mode->name);
    mode->start(parameters, ready);
}

void step() {
    mode->step();
}

void report(guest::Fields& fields) {
    mode->report(fields);
}

bool verify(guest::Fields& findings) {
    return mode->verify(findings);
}

}  // namespace workload
