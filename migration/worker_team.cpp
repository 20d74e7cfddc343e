#include "migration/worker_team.hpp"

#include <chrono>

#include "vmm/base/thread.hpp"

namespace migration {

vmm::Result<std::unique_ptr<WorkerTeam>> WorkerTeam::create(std::size_t size) {
    std::unique_ptr<WorkerTeam> team{new WorkerTeam};
    for (std::size_t worker = 1; worker < size; ++worker) {
        team->threads_.push_back(TRY(vmm::start_thread(fmt::format("pages{}", worker), vmm::ThreadRole::pages,
                                                       [self = team.get(), worker] { self->loop(worker); })));
    }
    return team;
}

WorkerTeam::~WorkerTeam() {
    {
        const std::lock_guard lock{mutex_};
        stop_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) {
        thread.join();
    }
}

void WorkerTeam::run(const std::function<void(std::size_t)>& job, const std::function<void()>& idle) {
    {
        const std::lock_guard lock{mutex_};
        job_ = &job;
        busy_ = threads_.size();
        ++step_;
    }
    changed_.notify_all();
    job(0);
    std::unique_lock lock{mutex_};
    while (!changed_.wait_for(lock, std::chrono::seconds{1}, [this] { return busy_ == 0; })) {
        lock.unlock();
        idle();
        lock.lock();
    }
    job_ = nullptr;
}

void WorkerTeam::loop(std::size_t worker) {
    std::uint64_t done = 0;
    std::unique_lock lock{mutex_};
    for (;;) {
        changed_.wait(lock, [&] { return stop_ || step_ != done; });
        if (stop_) {
            return;
        }
        done = step_;
        const auto* job = job_;
        lock.unlock();
        (*job)(worker);
        lock.lock();
        if (--busy_ == 0) {
            changed_.notify_all();
        }
    }
}

}  // namespace migration
