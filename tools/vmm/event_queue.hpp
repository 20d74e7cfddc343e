// EventQueue: carries events of a migration from its threads to the control thread, at next to no cost for
// the former.
#pragma once

#include <functional>
#include <mutex>
#include <vector>

#include "migration/event.hpp"
#include "vmm/base/event_loop.hpp"

namespace tools {

class EventQueue final : public migration::EventSink {
  public:
    // `ready` is called on the loop's thread when there is something to take. `next`, if there is one, sees
    // every event after it was queued, on the thread where it happened, and may hold that thread.
    EventQueue(vmm::EventLoop& loop, std::function<void()> ready, migration::EventSink* next)
        : loop_(loop), ready_(std::move(ready)), next_(next) {}

    void on(const migration::Event& event) override;
    // What came since; any thread.
    std::vector<migration::Event> take();

  private:
    vmm::EventLoop& loop_;
    const std::function<void()> ready_;
    migration::EventSink* const next_;

    std::mutex mutex_;
    std::vector<migration::Event> queue_;
    bool announced_ = false;
    // From the decision to pause to the end of the pause nobody is woken: the control thread would compete
    // for a processor with those that the guest waits for.
    bool in_pause_ = false;
};

}  // namespace tools
