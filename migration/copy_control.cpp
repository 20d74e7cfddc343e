#include "migration/copy_control.hpp"

#include <algorithm>
#include <thread>

namespace migration {

using vmm::Duration;
using vmm::Result;
using vmm::TimePoint;

namespace {

constexpr Duration kReportEvery = std::chrono::milliseconds{100};
constexpr Duration kKeepAliveEvery = std::chrono::seconds{1};
// The longest nap under a bandwidth limit: how late a cancel may be noticed.
constexpr Duration kNap = std::chrono::milliseconds{50};

}  // namespace

CopyControl::CopyControl(const vmm::Clock& clock, EventSink& events,
                         std::optional<std::uint64_t> max_bandwidth, Hooks hooks)
    : clock_(clock),
      events_(events),
      max_bandwidth_(max_bandwidth),
      hooks_(std::move(hooks)),
      free_at_(clock.now()),
      last_report_(clock.now()),
      last_keep_alive_(clock.now()) {
}

void CopyControl::round_started(std::uint32_t round, std::uint64_t owed_pages, GuestState guest) {
    guest_ = guest;
    progress_.round = round;
    progress_.owed_pages = owed_pages;
    events_.on({clock_.now(), RoundStarted{round, owed_pages}});
}

Result<void> CopyControl::after_frame(std::size_t worker, std::size_t bytes) {
    TRY(hooks_.check());
    if (worker == 0) {
        report();
    }
    // The pause is as short as the link allows, whatever the limit.
    return guest_ == GuestState::running && max_bandwidth_ ? pace(worker, bytes) : Result<void>{};
}

Result<void> CopyControl::pace(std::size_t worker, std::size_t bytes) {
    const Duration cost{
        static_cast<std::int64_t>(static_cast<double>(bytes) * 1e9 / static_cast<double>(*max_bandwidth_))};
    TimePoint mine;
    {
        const std::lock_guard lock{mutex_};
        free_at_ = std::max(free_at_, clock_.now()) + cost;
        mine = free_at_;
    }
    const TimePoint begin = clock_.now();
    for (TimePoint now = begin; now < mine; now = clock_.now()) {
        // Time is what is waited for here: a bandwidth is bytes over time.
        std::this_thread::sleep_for(std::min<Duration>(mine - now, kNap));
        TRY(hooks_.check());
        if (worker == 0) {
            report();
        }
    }
    const std::lock_guard lock{mutex_};
    slept_ += clock_.now() - begin;
    return {};
}

void CopyControl::idle() {
    report();
}

Duration CopyControl::take_slept() {
    const std::lock_guard lock{mutex_};
    return std::exchange(slept_, {});
}

void CopyControl::report() {
    const TimePoint now = clock_.now();
    if (now - last_keep_alive_ >= kKeepAliveEvery) {
        last_keep_alive_ = now;
        hooks_.keep_alive();
    }
    if (now - last_report_ < kReportEvery) {
        return;
    }
    const std::uint64_t sent = hooks_.bytes_sent();
    progress_.rate = static_cast<double>(sent - progress_.bytes_sent) /
                     std::chrono::duration<double>(now - last_report_).count();
    progress_.bytes_sent = sent;
    last_report_ = now;
    events_.on({now, progress_});
}

}  // namespace migration
