// The threads of a guest's process besides vCPUs: one that serves devices, and workers for what may wait.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "vmm/base/event_loop.hpp"
#include "vmm/base/thread.hpp"

namespace tools {

// An event loop and its thread, until the object goes.
class IoThread {
  public:
    static vmm::Result<std::unique_ptr<IoThread>> start(const char* name);
    ~IoThread();
    IoThread(const IoThread&) = delete;
    IoThread& operator=(const IoThread&) = delete;

    vmm::EventLoop& loop() { return *loop_; }

  private:
    explicit IoThread(std::unique_ptr<vmm::EventLoop> loop) : loop_(std::move(loop)) {}

    std::unique_ptr<vmm::EventLoop> loop_;
    std::thread thread_;
};

// Runs tasks one after another on a thread of its own.
class Worker {
  public:
    static vmm::Result<std::unique_ptr<Worker>> start(const char* name, vmm::ThreadRole role);
    // Waits for all tasks.
    ~Worker();
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    // Any thread.
    void post(std::function<void()> task);

  private:
    Worker() = default;
    void main();

    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::function<void()>> tasks_;
    bool quit_ = false;
    std::thread thread_;
};

}  // namespace tools
