#include "devices/virtio/flusher.hpp"

#include <unistd.h>

#include "vmm/base/advice.hpp"
#include "vmm/base/thread.hpp"

namespace devices::virtio {

using vmm::Code;
using vmm::Result;

Flusher::~Flusher() {
    {
        const std::lock_guard lock{mutex_};
        quit_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) {
        thread_.join();
    }
}

Result<void> Flusher::begin() {
    const std::lock_guard lock{mutex_};
    if (!thread_.joinable()) {
        thread_ = TRY(vmm::start_thread("flush", vmm::ThreadRole::storage, [this] { main(); }));
    }
    ++wanted_;
    changed_.notify_all();
    return {};
}

Result<void> Flusher::wait(vmm::Duration limit) {
    std::unique_lock lock{mutex_};
    const std::uint64_t until = wanted_;
    if (!changed_.wait_for(lock, limit, [&] { return done_ >= until; })) {
        return vmm::fail(Code::timeout, "{}: what was written has not reached the storage after {:.0f} ms",
                         name_, vmm::to_ms(limit));
    }
    if (error_ != 0) {
        return advise(
            vmm::Failure{vmm::Error::from_errno(Code::io, fmt::format("fdatasync {}", name_), error_)},
            "what its guest wrote may be lost: check the storage");
    }
    return {};
}

void Flusher::main() {
    std::unique_lock lock{mutex_};
    for (;;) {
        changed_.wait(lock, [&] { return quit_ || wanted_ > done_; });
        if (quit_) {
            return;
        }
        const std::uint64_t until = wanted_;
        lock.unlock();
        if (error_ == 0 && ::fdatasync(file_) != 0) {
            error_ = errno;
        }
        lock.lock();
        done_ = until;
        changed_.notify_all();
    }
}

}  // namespace devices::virtio
