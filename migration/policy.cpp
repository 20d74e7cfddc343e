#include "migration/policy.hpp"

#include <algorithm>

#include "vmm/base/check.hpp"
#include "vmm/guest/address.hpp"

namespace migration {

using vmm::Duration;

namespace {

constexpr std::uint64_t kTellingPages = 256;
// Loopback and 10 Gbit/s links do at least this; used only until a round has told better. Bytes/s.
constexpr double kAssumedRate = 500e6;
// Rounds in a row that may fail to shrink the debt before we call it a stall.
constexpr std::size_t kStallRounds = 3;
constexpr Duration kFreeExtraTime = std::chrono::milliseconds{120};

// Whether none of the last kStallRounds rounds left clearly less (10 %) than the best before them.
bool stalled(std::span<const Round> rounds) {
    if (rounds.size() <= kStallRounds) {
        return false;
    }
    const auto less = [](const Round& a, const Round& b) { return a.owed_after < b.owed_after; };
    const auto recent = rounds.last(kStallRounds);
    const auto before = rounds.first(rounds.size() - kStallRounds);
    const std::uint64_t best_recent = std::min_element(recent.begin(), recent.end(), less)->owed_after;
    const std::uint64_t best_before = std::min_element(before.begin(), before.end(), less)->owed_after;
    return best_recent * 10 > best_before * 9;
}

}  // namespace

Duration default_max_pause(Duration max_downtime) {
    return std::max<Duration>(std::chrono::seconds{1}, 4 * max_downtime);
}

bool is_telling(const Round& round) {
    return round.data_pages >= kTellingPages;
}

double send_rate(std::span<const Round> rounds) {
    for (auto round = rounds.rbegin(); round != rounds.rend(); ++round) {
        const Duration time = round->link_time > Duration::zero() ? round->link_time : round->duration;
        if (is_telling(*round) && time > Duration::zero()) {
            return static_cast<double>(round->data_pages * vmm::kPageSize) /
                   std::chrono::duration<double>(time).count();
        }
    }
    return 0;
}

Duration predict(std::uint64_t owed_pages, double rate, const FixedCosts& costs) {
    const double seconds =
        static_cast<double>(owed_pages * vmm::kPageSize) / (rate > 0 ? rate : kAssumedRate);
    // An hour is as good as for ever, and cannot overflow.
    return costs.total() +
           std::chrono::duration_cast<Duration>(std::chrono::duration<double>(std::min(seconds, 3600.0)));
}

Verdict decide(const Limits& limits, std::span<const Round> rounds, const FixedCosts& costs) {
    VERIFY(!rounds.empty());
    const auto predicted_after = [&](std::size_t index) {
        return predict(rounds[index].owed_after, send_rate(rounds.first(index + 1)), costs);
    };
    const std::size_t last = rounds.size() - 1;
    const Duration now = predicted_after(last);
    if (rounds[last].owed_after == 0) {
        return {Action::switch_over, now, "nothing is owed"};
    }
    if (now > limits.max_downtime) {
        if (!stalled(rounds)) {
            return {Action::another_round, now, "the pause would be longer than --max-downtime"};
        }
        if (limits.on_stall == OnStall::abort) {
            return {Action::give_up, now,
                    "the guest writes faster than the link carries, and --on-stall=abort"};
        }
        if (now > limits.max_pause) {
            return {Action::give_up, now,
                    "the guest writes faster than the link carries: the pause would pass --max-pause"};
        }
        return {Action::switch_over, now, "rounds stopped shrinking"};
    }

    // It fits. What follows is bought with total time, so it has a budget, counted from the first round that
    // fitted.
    std::size_t first_fit = last;
    while (first_fit > 0 && predicted_after(first_fit - 1) <= limits.max_downtime) {
        --first_fit;
    }
    Duration before{};
    Duration extra{};
    for (std::size_t i = 0; i <= last; ++i) {
        (i <= first_fit ? before : extra) += rounds[i].duration;
    }
    if (extra > std::max<Duration>(kFreeExtraTime, before / 10)) {
        return {Action::switch_over, now, "further rounds would cost too much time"};
    }
    if (last > 0 && predicted_after(last - 1) < 2 * now) {
        return {Action::switch_over, now, "another round would not halve the pause"};
    }
    return {Action::another_round, now, "another round may halve the pause"};
}

}  // namespace migration
