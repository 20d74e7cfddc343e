// UniqueFd: an owned file descriptor. No other type stores a raw one.
#pragma once

#include <utility>

#include "vmm/base/result.hpp"

namespace vmm {

class UniqueFd {
  public:
    UniqueFd() = default;
    explicit UniqueFd(int fd) : fd_(fd) {}
    UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    UniqueFd& operator=(UniqueFd&& other) noexcept;
    ~UniqueFd() { reset(); }

    int get() const { return fd_; }
    explicit operator bool() const { return fd_ >= 0; }
    void reset();
    // Gives the descriptor away; the caller closes it.
    int release() { return std::exchange(fd_, -1); }
    Result<UniqueFd> duplicate() const;

  private:
    int fd_ = -1;
};

// A counter that wakes whoever polls it (eventfd, close-on-exec, non-blocking).
class WakeFd {
  public:
    static Result<WakeFd> create();
    int fd() const { return fd_.get(); }
    // Any thread, and safe in a signal handler.
    void wake() const;
    // Reads the counter back to zero.
    void clear() const;

  private:
    explicit WakeFd(UniqueFd fd) : fd_(std::move(fd)) {}
    UniqueFd fd_;
};

}  // namespace vmm
