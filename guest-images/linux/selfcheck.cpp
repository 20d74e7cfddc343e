// The program that /init of the Linux guest becomes: starts every service, then serves the line protocol.

#include <fstream>
#include <iterator>
#include <string>

#include <time.h>

#include "clock.hpp"
#include "marked_pages.hpp"
#include "protocol.hpp"
#include "runtime/abi.h"
#include "runtime/guest.hpp"
#include "service.hpp"

namespace selfcheck {
namespace {

class Guest {
  public:
    Guest() {
        // The log first: later it tells what came with the work of the others.
        services_.push_back(make_kernel_log());
        auto clock = std::make_unique<Clock>();
        clock_ = clock.get();
        services_.push_back(std::move(clock));
        services_.push_back(make_memory());
        services_.push_back(make_disk());
        services_.push_back(make_echo());
        services_.push_back(make_cpu());
        services_.push_back(make_entropy());
    }

    void start(const guest::Parameters& parameters) {
        guest::Fields ready;
        for (auto& service : services_) {
            service->start(parameters, ready);
        }
        timespec up = {};
        clock_gettime(CLOCK_BOOTTIME, &up);
        ready.number("up_ms", static_cast<uint64_t>(up.tv_sec * 1000 + up.tv_nsec / 1'000'000));
        guest::say("ready", ready);
    }

    void run(const std::string& line) {
        const std::size_t space = line.find(' ');
        const std::string command = line.substr(0, space);
        const std::string argument = space == std::string::npos ? "" : line.substr(space + 1);
        if (command == "status") {
            status();
        } else if (command == "check") {
            check();
        } else if (command == "mark") {
            mark(argument);
        } else if (command == "proof") {
            proof();
        } else if (command == "finish") {
            finish();
        } else if (command == "poweroff") {
            power_off();
        } else if (command == "reset") {
            restart();
        } else {
            guest::say("error",
                       guest::Fields().text("reason", "unknown_command").text("command", command.c_str()));
        }
    }

    void finish() {
        guest::Fields counters;
        clock_->add_gaps(counters);
        report(counters);
        guest::Fields fields;
        const bool ok = verify(fields);
        fields.append(counters);
        if (!ok) {
            guest::fail(fields);
        }
        guest::say("PASS", fields);
        leave_by_exit_port(EXIT_PASS);
        power_off();
    }

  private:
    void report(guest::Fields& counters) const {
        for (const auto& service : services_) {
            service->report(counters);
        }
    }

    void status() {
        guest::Fields fields;
        clock_->add_gaps(fields);
        report(fields);
        guest::say("status", fields);
    }

    bool verify(guest::Fields& findings) {
        if (!pages_.proof().intact) {
            findings.text("reason", "bad_marked_pages").hex("seed", pages_.seed());
            return false;
        }
        for (auto& service : services_) {
            if (!service->verify(findings)) {
                return false;
            }
        }
        return true;
    }

    // The counters are taken before the self-check, whose time they should not contain.
    void check() {
        guest::Fields counters;
        report(counters);
        guest::Fields findings;
        const bool ok = verify(findings);
        guest::say("check", guest::Fields().number("ok", ok ? 1 : 0).append(findings).append(counters));
    }

    void mark(const std::string& seed_text) {
        uint64_t seed = 0;
        if (!guest::parse_hex(seed_text.c_str(), seed)) {
            guest::say("error", guest::Fields().text("reason", "bad_seed"));
            return;
        }
        pages_.mark(seed);
        guest::say("marked", guest::Fields().hex("seed", seed));
    }

    void proof() const {
        if (!pages_.marked()) {
            guest::say("error", guest::Fields().text("reason", "not_marked"));
            return;
        }
        const MarkedPages::Proof proof = pages_.proof();
        guest::say("proof", guest::Fields()
                                .hex("seed", pages_.seed())
                                .number("pages", MarkedPages::kPages)
                                .hex("hash", proof.hash)
                                .number("ok", proof.intact ? 1 : 0));
    }

    std::vector<std::unique_ptr<Service>> services_;
    Clock* clock_ = nullptr;  // one of them
    MarkedPages pages_;
};

guest::Parameters kernel_parameters() {
    std::ifstream file("/proc/cmdline");
    std::string line;
    std::getline(file, line);
    guest::Parameters parameters;
    parameters.read(line.c_str());
    return parameters;
}

[[noreturn]] void serve() {
    open_protocol();
    const guest::Parameters parameters = kernel_parameters();
    const uint64_t run_ms = parameters.number("godwit.run_ms", 0);
    Guest guest;
    guest.start(parameters);
    std::string line;
    for (;;) {
        // With godwit.run_ms a command, when there is one, begins the time anew.
        if (next_command(line, run_ms == 0 ? -1 : static_cast<int>(run_ms))) {
            guest.run(line);
        } else {
            guest.finish();
        }
    }
}

}  // namespace
}  // namespace selfcheck

int main() {
    selfcheck::serve();
}
