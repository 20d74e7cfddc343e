#include "tools/vmm/threads.hpp"

#include "tools/vmm/log.hpp"

namespace tools {

using vmm::Result;

Result<std::unique_ptr<IoThread>> IoThread::start(const char* name) {
    std::unique_ptr<IoThread> io{new IoThread{TRY(vmm::EventLoop::create())}};
    io->thread_ = TRY(vmm::start_thread(name, vmm::ThreadRole::io, [loop = io->loop_.get(), name] {
        if (const auto served = loop->run(); !served) {
            log_line("{}: {}", name, served.error().text());
        }
    }));
    return io;
}

IoThread::~IoThread() {
    loop_->stop();
    if (thread_.joinable()) {
        thread_.join();
    }
}

Result<std::unique_ptr<Worker>> Worker::start(const char* name, vmm::ThreadRole role) {
    std::unique_ptr<Worker> worker{new Worker};
    worker->thread_ = TRY(vmm::start_thread(name, role, [self = worker.get()] { self->main(); }));
    return worker;
}

Worker::~Worker() {
    {
        const std::lock_guard lock{mutex_};
        quit_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) {
        thread_.join();
    }
}

void Worker::post(std::function<void()> task) {
    {
        const std::lock_guard lock{mutex_};
        tasks_.push_back(std::move(task));
    }
    changed_.notify_all();
}

void Worker::main() {
    std::unique_lock lock{mutex_};
    for (;;) {
        changed_.wait(lock, [this] { return quit_ || !tasks_.empty(); });
        if (tasks_.empty()) {
            return;
        }
        const std::function<void()> task = std::move(tasks_.front());
        tasks_.pop_front();
        lock.unlock();
        task();
        lock.lock();
    }
}

}  // namespace tools
