#include "protocol.hpp"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <mutex>

#include <poll.h>
#include <sys/io.h>
#include <sys/reboot.h>
#include <termios.h>
#include <unistd.h>

#include "runtime/abi.h"
#include "runtime/guest.hpp"

namespace selfcheck {
namespace {

std::mutex output_mutex;

void print(const char* verb, const guest::Fields& fields) {
    std::printf("linux %s%s\n", verb, fields.c_str());
    std::fflush(stdout);
}

// What is in the port's FIFO would be lost with the machine.
void drain() {
    tcdrain(STDOUT_FILENO);
}

}  // namespace

void open_protocol() {
    termios mode = {};
    tcgetattr(STDIN_FILENO, &mode);
    cfmakeraw(&mode);
    tcsetattr(STDIN_FILENO, TCSANOW, &mode);
}

bool next_command(std::string& line, int timeout_ms) {
    static std::string received;
    for (;;) {
        const std::size_t end = received.find_first_of("\r\n");
        if (end != std::string::npos) {
            line = received.substr(0, end);
            received.erase(0, end + 1);
            if (!line.empty()) {
                return true;
            }
            continue;
        }
        pollfd input = {STDIN_FILENO, POLLIN, 0};
        if (poll(&input, 1, timeout_ms) <= 0) {
            return false;
        }
        char bytes[128];
        const ssize_t length = read(STDIN_FILENO, bytes, sizeof(bytes));
        if (length > 0) {
            received.append(bytes, static_cast<std::size_t>(length));
        }
    }
}

void leave_by_exit_port(unsigned char value) {
    drain();
    if (ioperm(EXIT_PORT, 1, 1) == 0) {
        // QEMU's TCG, where it emulates our host, lets no OUT by a TSS that is marked busy; the one in use
        // has to be, and is once KVM has set it in a vCPU that was moved. It faults, and the machine is
        // switched off.
        std::signal(SIGSEGV, [](int) { power_off(); });
        outb(value, EXIT_PORT);
    }
}

void power_off() {
    drain();
    sync();
    reboot(RB_POWER_OFF);
    std::abort();
}

void restart() {
    drain();
    sync();
    reboot(RB_AUTOBOOT);
    std::abort();
}

}  // namespace selfcheck

namespace guest {

void say(const char* verb, const Fields& fields) {
    const std::lock_guard lock(selfcheck::output_mutex);
    selfcheck::print(verb, fields);
}

// Nothing is printed after FAIL: whoever holds the mutex now ends the machine.
void fail(const Fields& fields) {
    selfcheck::output_mutex.lock();
    selfcheck::print("FAIL", fields);
    selfcheck::leave_by_exit_port(EXIT_FAIL);
    selfcheck::power_off();
}

}  // namespace guest
