// RawTerminal: a terminal that passes every key to the guest, put back as it was on every exit.
#pragma once

#include <termios.h>

#include <memory>

#include "vmm/base/result.hpp"
#include "vmm/base/unique_fd.hpp"

namespace devices {

class RawTerminal {
  public:
    // True unless reading it would stop this process because another job has the terminal.
    static bool in_foreground(int fd);

    // `fd` is a terminal; output processing stays on, so that a bare line feed starts a new line. One at a
    // time. Also restored at exit(), for whoever leaves without unwinding.
    static vmm::Result<std::unique_ptr<RawTerminal>> create(int fd);
    RawTerminal(const RawTerminal&) = delete;
    RawTerminal& operator=(const RawTerminal&) = delete;
    ~RawTerminal();

  private:
    RawTerminal(vmm::UniqueFd fd, const termios& before) : fd_(std::move(fd)), before_(before) {}
    void restore() const;

    vmm::UniqueFd fd_;
    termios before_;
};

}  // namespace devices
