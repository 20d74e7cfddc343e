#pragma once

#include <memory>

#include "runtime/text.hpp"

namespace selfcheck {

// One thing the guest does all the time and can judge. Threads of its own do the work; the thread that serves
// the commands calls these functions. A fault found while it works ends the guest at once (guest::fail).
class Service {
  public:
    virtual ~Service() = default;

    // Starts the work, or does nothing when the machine has no such device or the parameters do not ask for
    // it. Adds what it chose to the `ready` line.
    virtual void start(const guest::Parameters& parameters, guest::Fields& ready) = 0;

    // Adds counters to `status`, `check` and PASS.
    virtual void report(guest::Fields& counters) const = 0;

    // The full self-check; false fails the guest, with reason=.. added first.
    virtual bool verify(guest::Fields& findings) = 0;
};

std::unique_ptr<Service> make_memory();      // memory.cpp
std::unique_ptr<Service> make_disk();        // disk.cpp
std::unique_ptr<Service> make_echo();        // echo.cpp
std::unique_ptr<Service> make_cpu();         // cpu.cpp
std::unique_ptr<Service> make_entropy();     // entropy.cpp
std::unique_ptr<Service> make_kernel_log();  // kernel_log.cpp

}  // namespace selfcheck
