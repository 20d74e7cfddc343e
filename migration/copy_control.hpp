// CopyControl: what happens between two frames: bandwidth limit, keep-alive, progress, and whether to go on
// at all.
#pragma once

#include <functional>
#include <mutex>

#include "migration/event.hpp"
#include "migration/page_sender.hpp"

namespace migration {

class CopyControl final : public CopyMonitor {
  public:
    struct Hooks {
        std::function<vmm::Result<void>()> check;   // cancelled, or past --timeout; any worker
        std::function<std::uint64_t()> bytes_sent;  // on all connections
        std::function<void()> keep_alive;           // about once a second; worker 0
    };
    // `max_bandwidth` in bytes/s.
    CopyControl(const vmm::Clock& clock, EventSink& events, std::optional<std::uint64_t> max_bandwidth,
                Hooks hooks);

    // By the source's thread, before each round.
    void round_started(std::uint32_t round, std::uint64_t owed_pages, GuestState guest);

    vmm::Result<void> after_frame(std::size_t worker, std::size_t bytes) override;
    // While worker 0, the source's thread, waits.
    void idle();
    // How long the workers slept for --max-bandwidth since the last call, all of them together.
    vmm::Duration take_slept();

  private:
    vmm::Result<void> pace(std::size_t worker, std::size_t bytes);
    void report();

    const vmm::Clock& clock_;
    EventSink& events_;
    const std::optional<std::uint64_t> max_bandwidth_;
    const Hooks hooks_;
    GuestState guest_ = GuestState::running;  // written between rounds

    std::mutex mutex_;
    vmm::TimePoint free_at_;  // when the link is free again under the limit
    vmm::Duration slept_{};

    // Of worker 0 only.
    Progressed progress_;
    vmm::TimePoint last_report_;
    vmm::TimePoint last_keep_alive_;
};

}  // namespace migration
