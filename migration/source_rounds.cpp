// What a source learns from its rounds, and when it switches over.
#include <algorithm>

#include "migration/source.hpp"

namespace migration {

using vmm::Code;
using vmm::Duration;
using vmm::fail;
using vmm::Result;
using vmm::TimePoint;

namespace {

// Of disks: shorter than it is worth another round for.
constexpr Duration kShortFlush = std::chrono::milliseconds{10};

}  // namespace

// The least is what it costs; the rest was the scheduler's.
void Source::learn_from(const Round& round) {
    if (is_telling(round)) {
        return;
    }
    // It ended with RoundDone, which the last one does not wait for.
    costs_.round_trip = std::min(costs_.round_trip, round.duration);
    const Duration pass = round.duration - costs_.round_trip;
    costs_.pass = costs_.pass ? std::min(*costs_.pass, pass) : pass;
}

Result<bool> Source::worth_the_pause() {
    const Verdict verdict = decide(options_.limits, rounds_, costs_);
    services_.events.on({services_.clock.now(), Decided{verdict}});
    if (verdict.action == Action::give_up) {
        return fail(Code::limit, "{}", verdict.why);
    }
    if (verdict.action != Action::switch_over || std::exchange(storage_flushed_, true)) {
        return verdict.action == Action::switch_over;
    }
    // Once, before the pause, which then flushes only what was written since. Memory was written meanwhile
    // too.
    return TRY(flush_storage()) < kShortFlush && TRY(worth_the_pause());
}

// Twice: the second time says what the flush in the pause will cost.
Result<Duration> Source::flush_storage() {
    const TimePoint begin = services_.clock.now();
    TRY(flush_once());
    const TimePoint again = services_.clock.now();
    TRY(flush_once());
    costs_.storage = services_.clock.now() - again;
    return services_.clock.now() - begin;
}

// It may take long, and the destination must hear of us.
Result<void> Source::flush_once() {
    TRY(services_.vm.begin_flush());
    for (;;) {
        auto flushed = services_.vm.wait_flushed(kShortFlush);
        TRY(check());
        if (flushed || flushed.error().code() != Code::timeout) {
            return flushed;
        }
        copy_control_->idle();
    }
}

Result<void> Source::await_round_done(std::uint32_t round) {
    const Message answer = TRY(next_answer(deadline()));
    if (const auto* done = std::get_if<RoundDone>(&answer); done != nullptr && done->round == round) {
        return {};
    }
    if (const auto* failed = std::get_if<Failed>(&answer)) {
        return fail(Code::refused, "{}", failed->text);
    }
    return fail(Code::protocol, "the destination sent {} where RoundDone {} was due", message_name(answer),
                round);
}

// The pause knows no bandwidth limit: what it will need is what the link took, without the sleeps. Socket
// buffers empty while we sleep, so the kernel's own measurement is asked too.
Duration Source::link_time(const Round& round) {
    if (!options_.max_bandwidth) {
        return {};
    }
    const auto carriers = static_cast<std::int64_t>(std::max<std::uint16_t>(options_.streams, 1));
    Duration time = round.duration - copy_control_->take_slept() / carriers;
    double rate = 0;
    for (std::size_t i = options_.streams == 0 ? 0 : 1; i < streams_.size(); ++i) {
        rate += streams_[i]->delivery_rate();
    }
    if (rate > 0) {
        const std::chrono::duration<double> carried{static_cast<double>(round.bytes) / rate};
        time = std::max(time, std::chrono::duration_cast<Duration>(carried));
    }
    return std::clamp(time, Duration{1}, round.duration);
}

}  // namespace migration
