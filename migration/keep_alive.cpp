#include "migration/keep_alive.hpp"

#include "vmm/base/thread.hpp"

namespace migration {

KeepAlives::KeepAlives(MessageStream& stream) : stream_(stream) {
    if (auto thread = vmm::start_thread("keepalive", vmm::ThreadRole::pages, [this] { send_them(); })) {
        thread_ = std::move(*thread);
    }
}

KeepAlives::~KeepAlives() {
    {
        const std::lock_guard lock{mutex_};
        over_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) {
        thread_.join();
    }
}

void KeepAlives::send_them() {
    std::unique_lock lock{mutex_};
    while (!changed_.wait_for(lock, std::chrono::seconds{1}, [this] { return over_; })) {
        lock.unlock();
        (void)stream_.send(KeepAlive{});  // a failure shows at the next receive
        lock.lock();
    }
}

}  // namespace migration
