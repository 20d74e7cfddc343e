// The life of every guest: start, the main loop, the commands of the line protocol, the end.

#include "runtime/clock.hpp"
#include "runtime/cpu.hpp"
#include "runtime/cpus.hpp"
#include "runtime/guest.hpp"
#include "runtime/interrupts.hpp"
#include "runtime/lapic.hpp"
#include "runtime/memory.hpp"
#include "runtime/proof.hpp"
#include "runtime/serial.hpp"

extern "C" {
extern const uint64_t panic_vector;
extern const uint64_t panic_error;
extern const uint64_t panic_rip;
extern const uint64_t panic_address;
[[noreturn]] void user_main();
[[noreturn]] void panic_main();
}

namespace guest {
namespace {

constinit Parameters parameters;
constinit bool finish_requested = false;

void put_text(const char* text) {
    for (; *text != '\0'; ++text) {
        serial::put(*text);
    }
}

[[noreturn]] void leave(uint8_t value) {
    serial::flush();
    out8(EXIT_PORT, value);
    for (;;) {
        asm volatile("pause");
    }
}

void add_gaps(Fields& fields) {
    fields.tenths("gap_us", tenths_of_us(watch().take_longest()));
    fields.tenths("gap_total_max_us", tenths_of_us(watch().longest()));
    fields.number("back_steps", watch().back_steps());
}

void report_status() {
    Fields fields;
    add_gaps(fields);
    workload::report(fields);
    say("status", fields);
}

// The guest's own check, and the marked pages if there are any.
bool verify(Fields& findings) {
    const proof::Result result = proof::check();
    if (result.marked && !result.intact) {
        findings.text("reason", "bad_marked_pages").hex("seed", result.seed);
        return false;
    }
    return workload::verify(findings);
}

// The counters are taken before the self-check, whose time they should not contain.
void report_check() {
    Fields counters;
    workload::report(counters);
    Fields findings;
    const bool ok = verify(findings);
    say("check", Fields().number("ok", ok ? 1 : 0).append(findings).append(counters));
}

[[noreturn]] void finish() {
    Fields counters;
    add_gaps(counters);
    workload::report(counters);
    Fields fields;
    const bool ok = verify(fields);
    fields.append(counters);
    if (!ok) {
        fail(fields);
    }
    say("PASS", fields);
    leave(EXIT_PASS);
}

void report_proof() {
    const proof::Result result = proof::check();
    if (!result.marked) {
        say("error", Fields().text("reason", "not_marked"));
        return;
    }
    say("proof", Fields()
                     .hex("seed", result.seed)
                     .number("pages", proof::kPages)
                     .hex("hash", result.hash)
                     .number("ok", result.intact ? 1 : 0));
}

// Pulses the CPU's reset line through the keyboard controller (8042 command 0xfe).
[[noreturn]] void reset() {
    for (;;) {
        out8(KEYBOARD_COMMAND_PORT, 0xfe);
    }
}

void run_mark(const char* seed_text) {
    uint64_t seed = 0;
    if (!parse_hex(seed_text, seed)) {
        say("error", Fields().text("reason", "bad_seed"));
        return;
    }
    proof::mark(seed);
    say("marked", Fields().hex("seed", seed));
}

void run_command(char* line) {
    char* argument = line;
    while (*argument != '\0' && *argument != ' ') {
        ++argument;
    }
    if (*argument == ' ') {
        *argument++ = '\0';
    }
    if (equal(line, "status")) {
        report_status();
    } else if (equal(line, "check")) {
        report_check();
    } else if (equal(line, "finish")) {
        finish();
    } else if (equal(line, "mark")) {
        run_mark(argument);
    } else if (equal(line, "proof")) {
        report_proof();
    } else if (equal(line, "reset")) {
        reset();
    } else {
        say("error", Fields().text("reason", "unknown_command").text("command", line));
    }
}

// Collects received bytes into lines. One byte a call keeps an iteration of the main loop short.
void poll_commands() {
    constinit static char line[128] = {};
    constinit static uint32_t length = 0;
    char c = '\0';
    if (!serial::take(c)) {
        return;
    }
    if (c == '\n' || c == '\r') {
        line[length] = '\0';
        if (length != 0) {
            length = 0;
            run_command(line);
        }
    } else if (length < sizeof(line) - 1) {
        line[length++] = c;
    }
}

// For an observer outside: one byte, `beat_hz` times a second, but not behind or among other output.
class Heartbeat {
  public:
    explicit Heartbeat(uint64_t hz) : period_(hz == 0 ? 0 : tsc_khz() * 1000 / hz) {}
    void step() {
        const uint64_t now = watch().now();
        if (period_ == 0 || now < next_) {
            return;
        }
        next_ = now - next_ < period_ ? next_ + period_ : now + period_;
        if (!serial::busy()) {
            serial::put('\a');
        }
    }

  private:
    uint64_t period_;
    uint64_t next_ = 0;
};

[[noreturn]] void run() {
    Heartbeat heartbeat(parameters.number("beat_hz", 0));
    const uint64_t run_ms = parameters.number("run_ms", 0);
    const uint64_t run_ticks = run_ms == 0 ? UINT64_MAX : tsc_from_us(run_ms * 1000);
    for (;;) {
        watch().beat();
        if (finish_requested || watch().elapsed() >= run_ticks) {
            finish();
        }
        poll_commands();
        heartbeat.step();
        serial::pump();
        workload::step();
    }
}

}  // namespace

void say(const char* verb, const Fields& fields) {
    put_text(workload::workload_name);
    serial::put(' ');
    put_text(verb);
    put_text(fields.c_str());
    serial::put('\n');
}

// Any CPU may fail, and the first that does has the serial port to itself.
void fail(const Fields& fields) {
    constinit static bool failing = false;
    while (__atomic_exchange_n(&failing, true, __ATOMIC_ACQ_REL)) {
        relax();
    }
    stop_other_cpus();
    say("FAIL", fields);
    leave(EXIT_FAIL);
}

void request_finish() {
    finish_requested = true;
}

}  // namespace guest

void user_main() {
    using namespace guest;
    install_handlers();
    serial::start();
    BootInfo boot{};
    boot.command_line = "";
    read_boot_info(boot);
    parameters.read(boot.command_line);
    memory().map(boot);
    if (parameters.number("x2apic", 0) != 0) {
        if (!has_x2apic()) {
            fail(Fields().text("reason", "no_x2apic"));
        }
        use_x2apic();
    }
    start_interrupts();
    start_clock();

    watch().start();
    Fields ready;
    ready.number("tsc_khz", tsc_khz()).text("clock", has_kvmclock() ? "kvmclock" : "pit");
    ready.number("mem_mib", memory().mib());
    workload::start(parameters, ready);
    say("ready", ready);
    watch().start();
    run();
}

void panic_main() {
    using namespace guest;
    fail(Fields()
             .text("reason", "exception")
             .number("vector", panic_vector)
             .hex("rip", panic_rip)
             .hex("err", panic_error)
             .hex("cr2", panic_address));
}
