// Flusher: fdatasync(2) on a thread of its own, so that nobody has to wait for storage longer than he wants.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "vmm/base/clock.hpp"
#include "vmm/base/result.hpp"

namespace devices::virtio {

// Any thread.
class Flusher {
  public:
    // `name` is for errors. The file stays open while this lives.
    Flusher(int file, std::string name) : file_(file), name_(std::move(name)) {}
    // Waits for a flush that has begun.
    ~Flusher();
    Flusher(const Flusher&) = delete;
    Flusher& operator=(const Flusher&) = delete;

    // Begins a flush of what has been written so far. The thread is made when it is needed first.
    vmm::Result<void> begin();
    // Waits for the flushes that have begun: Code::timeout, and they go on.
    vmm::Result<void> wait(vmm::Duration limit);
    // A flush has failed, and so do all that follow: the kernel tells of a lost write once.
    bool failed() const { return error_ != 0; }

  private:
    void main();

    const int file_;
    const std::string name_;
    std::atomic<int> error_{0};
    std::mutex mutex_;
    std::condition_variable changed_;
    std::uint64_t wanted_ = 0;  // how many have begun
    std::uint64_t done_ = 0;    // how many of them have ended
    bool quit_ = false;
    std::thread thread_;
};

}  // namespace devices::virtio
