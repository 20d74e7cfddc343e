#pragma once

#include <string>

namespace selfcheck {

// The serial port as the line protocol of guest-images/README.md wants it: bytes as they are, no echo. It is
// standard input and output, the kernel's console. Call once, first.
void open_protocol();

// The next command, a line without its end; waits at most `timeout_ms` (-1: for ever). False when there is
// none.
bool next_command(std::string& line, int timeout_ms);

// How a guest ends. Each returns only when the machine has no such way out.
void leave_by_exit_port(unsigned char value);
[[noreturn]] void power_off();
[[noreturn]] void restart();

}  // namespace selfcheck
