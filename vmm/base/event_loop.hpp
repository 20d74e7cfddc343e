// EventLoop: epoll for one thread, which calls run(). Everything else may be called from any thread.
#pragma once

#include <sys/epoll.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "vmm/base/result.hpp"
#include "vmm/base/unique_fd.hpp"

namespace vmm {

class EventLoop {
  public:
    // Gets the EPOLL* bits that are ready. Handlers run one after another on the loop's thread.
    using Handler = std::function<void(std::uint32_t events)>;

    // A descriptor being watched; the destructor ends that, and no call of the handler follows it. The loop
    // must outlive it, and the descriptor too (declare the Watch after the descriptor).
    class Watch {
      public:
        Watch() = default;
        Watch(Watch&& other) noexcept;
        Watch& operator=(Watch&& other) noexcept;
        ~Watch() { reset(); }

        explicit operator bool() const { return loop_ != nullptr; }
        // EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, level-triggered. As with epoll, EPOLLHUP and EPOLLERR are
        // reported whatever else is asked for, except that 0 asks for silence. Not on an empty Watch.
        void set_interest(std::uint32_t interest);
        void reset();

      private:
        friend class EventLoop;
        Watch(EventLoop& loop, std::uint64_t id) : loop_(&loop), id_(id) {}
        EventLoop* loop_ = nullptr;
        std::uint64_t id_ = 0;
    };

    static Result<std::unique_ptr<EventLoop>> create();
    EventLoop(const EventLoop&) = delete;
    EventLoop& operator=(const EventLoop&) = delete;

    // Fails with EPERM for what epoll cannot wait for: regular files and directories, which are always ready.
    Result<Watch> watch(int fd, std::uint32_t interest, Handler handler);
    // Runs `function` on the loop's thread, in the order of the calls; never waits for a handler. What is
    // posted after stop() is not run.
    void post(std::function<void()> function);
    // While the lock is held no handler runs, except the one that took it. It makes taking several watches
    // down a single step. Every other function here but post() and stop() takes it too, so none of them may
    // be called with a lock held that a handler needs.
    [[nodiscard]] std::unique_lock<std::recursive_mutex> quiesce() { return std::unique_lock{serving_}; }

    // Serves events until stop(). Fails only when epoll itself does.
    Result<void> run();
    // run() returns once the handler that is running has returned.
    void stop();

  private:
    struct Entry {
        int fd;
        std::uint32_t interest;
        std::shared_ptr<Handler> handler;
    };

    EventLoop(UniqueFd epoll, WakeFd wake) : epoll_(std::move(epoll)), wake_(std::move(wake)) {}

    void set_interest(std::uint64_t id, std::uint32_t interest);
    void remove(std::uint64_t id);
    void dispatch(const epoll_event& event);
    void run_posted();
    bool stopped();

    UniqueFd epoll_;
    WakeFd wake_;

    std::recursive_mutex serving_;
    // By an id that is never used again, so that an event fetched before its watch ended finds nothing.
    std::map<std::uint64_t, Entry> entries_;
    std::uint64_t next_id_ = 1;

    std::mutex mutex_;  // taken last
    std::vector<std::function<void()>> posted_;
    bool stopped_ = false;
};

}  // namespace vmm
