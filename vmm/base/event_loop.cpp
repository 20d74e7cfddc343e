#include "vmm/base/event_loop.hpp"

#include <array>

#include "vmm/base/check.hpp"

namespace vmm {

namespace {

constexpr std::uint64_t kWakeId = 0;

// What epoll is told. It reports EPOLLHUP and EPOLLERR even for an empty set; edge-triggered, it does so at
// most once instead of for ever, and dispatch() swallows that.
epoll_event event_of(std::uint64_t id, std::uint32_t interest) {
    epoll_event event{};
    event.events = interest == 0 ? static_cast<std::uint32_t>(EPOLLET) : interest;
    event.data.u64 = id;
    return event;
}

}  // namespace

EventLoop::Watch::Watch(Watch&& other) noexcept
    : loop_(std::exchange(other.loop_, nullptr)), id_(std::exchange(other.id_, 0)) {
}

EventLoop::Watch& EventLoop::Watch::operator=(Watch&& other) noexcept {
    if (this != &other) {
        reset();
        loop_ = std::exchange(other.loop_, nullptr);
        id_ = std::exchange(other.id_, 0);
    }
    return *this;
}

void EventLoop::Watch::set_interest(std::uint32_t interest) {
    VERIFY(loop_ != nullptr);
    loop_->set_interest(id_, interest);
}

void EventLoop::Watch::reset() {
    if (loop_ != nullptr) {
        std::exchange(loop_, nullptr)->remove(id_);
    }
}

Result<std::unique_ptr<EventLoop>> EventLoop::create() {
    UniqueFd epoll{::epoll_create1(EPOLL_CLOEXEC)};
    if (!epoll) {
        return fail_errno(Code::io, "epoll_create1");
    }
    WakeFd wake = TRY(WakeFd::create());
    epoll_event event = event_of(kWakeId, EPOLLIN);
    if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wake.fd(), &event) != 0) {
        return fail_errno(Code::io, "watch the wake-up descriptor");
    }
    return std::unique_ptr<EventLoop>{new EventLoop{std::move(epoll), std::move(wake)}};
}

Result<EventLoop::Watch> EventLoop::watch(int fd, std::uint32_t interest, Handler handler) {
    const auto quiet = quiesce();
    epoll_event event = event_of(next_id_, interest);
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
        return fail_errno(Code::io, "watch descriptor {}", fd);
    }
    entries_.emplace(next_id_, Entry{fd, interest, std::make_shared<Handler>(std::move(handler))});
    return Watch{*this, next_id_++};
}

void EventLoop::set_interest(std::uint64_t id, std::uint32_t interest) {
    const auto quiet = quiesce();
    Entry& entry = entries_.at(id);
    if (entry.interest == interest) {
        return;
    }
    entry.interest = interest;
    epoll_event event = event_of(id, interest);
    VERIFY(::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, entry.fd, &event) == 0);
}

void EventLoop::remove(std::uint64_t id) {
    const auto quiet = quiesce();
    const auto entry = entries_.find(id);
    VERIFY(::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, entry->second.fd, nullptr) == 0);
    entries_.erase(entry);
}

void EventLoop::post(std::function<void()> function) {
    const std::lock_guard lock{mutex_};
    posted_.push_back(std::move(function));
    wake_.wake();
}

void EventLoop::stop() {
    const std::lock_guard lock{mutex_};
    stopped_ = true;
    wake_.wake();
}

bool EventLoop::stopped() {
    const std::lock_guard lock{mutex_};
    return stopped_;
}

void EventLoop::run_posted() {
    wake_.clear();
    std::vector<std::function<void()>> batch;
    {
        const std::lock_guard lock{mutex_};
        batch.swap(posted_);
    }
    for (const auto& function : batch) {
        if (stopped()) {
            return;
        }
        const auto quiet = quiesce();
        function();
    }
}

void EventLoop::dispatch(const epoll_event& event) {
    if (event.data.u64 == kWakeId) {
        run_posted();
        return;
    }
    const auto quiet = quiesce();
    const std::uint64_t id = event.data.u64;  // the structure is packed: no reference into it
    const auto entry = entries_.find(id);
    if (entry == entries_.end() || entry->second.interest == 0) {
        return;
    }
    // A copy, because the handler may end its own watch.
    const std::shared_ptr<Handler> handler = entry->second.handler;
    (*handler)(event.events);
}

Result<void> EventLoop::run() {
    std::array<epoll_event, 32> events;
    while (!stopped()) {
        const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
        if (count < 0 && errno != EINTR) {
            return fail_errno(Code::io, "epoll_wait");
        }
        for (int i = 0; i < count && !stopped(); ++i) {
            dispatch(events[static_cast<std::size_t>(i)]);
        }
    }
    return {};
}

}  // namespace vmm
