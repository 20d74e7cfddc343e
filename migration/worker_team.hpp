// WorkerTeam: a fixed set of threads that do one step together and wait for each other.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "vmm/base/result.hpp"

namespace migration {

class WorkerTeam {
  public:
    // `size` workers, at least one; worker 0 is the thread that calls run(), the others are started here.
    static vmm::Result<std::unique_ptr<WorkerTeam>> create(std::size_t size);
    ~WorkerTeam();
    WorkerTeam(const WorkerTeam&) = delete;
    WorkerTeam& operator=(const WorkerTeam&) = delete;

    // Calls job(worker) once on every worker and returns when all have returned. While worker 0 waits for the
    // others it calls `idle` about once a second.
    void run(const std::function<void(std::size_t)>& job, const std::function<void()>& idle);

  private:
    WorkerTeam() = default;
    void loop(std::size_t worker);

    std::mutex mutex_;
    std::condition_variable changed_;
    const std::function<void(std::size_t)>* job_ = nullptr;
    std::uint64_t step_ = 0;
    std::size_t busy_ = 0;
    bool stop_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace migration
