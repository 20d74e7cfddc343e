#include "migration/source.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>

#include "migration/greeting.hpp"
#include "vmm/base/thread.hpp"

namespace migration {

using vmm::Code;
using vmm::Duration;
using vmm::fail;
using vmm::Result;
using vmm::TimePoint;

namespace {

// XXH3-64 of all parts in a row.
std::uint64_t hash_of(std::span<const std::span<const std::byte>> parts) {
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    for (const std::span<const std::byte> part : parts) {
        XXH3_64bits_update(&state, part.data(), part.size());
    }
    return XXH3_64bits_digest(&state);
}

// How long the destination is asked to keep what it has: a little longer than we try, so that the last try is
// not in vain.
std::uint32_t keep_ms(const std::optional<vmm::Duration>& retry) {
    constexpr Duration margin = std::chrono::seconds{15};
    if (!retry) {
        return 0;
    }
    const auto keep = std::chrono::ceil<std::chrono::milliseconds>(*retry + margin).count();
    return static_cast<std::uint32_t>(std::min<std::int64_t>(keep, UINT32_MAX));
}

}  // namespace

Source::Source(SourceServices services, SourceOptions options)
    : services_(services),
      options_(options),
      session_(random_bytes<std::tuple_size_v<SessionId>>()),
      secret_(random_bytes<std::tuple_size_v<Secret>>()),
      session_name_(to_hex(session_)) {
}

Source::~Source() = default;

Outcome Source::run() {
    started_at_ = services_.clock.now();
    auto moved = up_to_commit();
    while (!moved && may_retry(moved.error())) {
        moved = retry(moved.error());
    }
    if (!moved) {
        return roll_back(std::move(moved).error());
    }
    // From the first byte of Commit this side never resumes by itself.
    auto committed = commit();
    if (!committed) {
        services_.events.on({services_.clock.now(), Warned{reason_for(committed.error())}});
        return settle();
    }
    if (*committed) {
        return roll_back(std::move(**committed));
    }
    done();
    return finish(Outcome::completed, {});
}

Result<void> Source::up_to_commit() {
    TRY(connect());
    TRY(negotiate());
    TRY(preflight());
    TRY(prepare());
    TRY(copier_->start());
    return from_copy();
}

Result<void> Source::from_copy() {
    TRY(copy());
    TRY(pause());
    return final();
}

Result<void> Source::prepare() {
    enter(SourcePhase::prepare);
    Record record;
    record.session = session_;
    record.secret = secret_;
    record.uuid = manifest_.uuid;
    record.boot_id = services_.boot_id;
    record.epoch = manifest_.epoch;
    record.name = manifest_.name;
    record.peer = services_.connector.address().substr(0, 128);
    record_ = TRY(services_.records.create(record));
    TRY(send_boot_image(services_.vm.boot_image()));
    const Message answer = TRY(next_answer(deadline()));
    const auto* prepared = std::get_if<Prepared>(&answer);
    if (prepared == nullptr) {
        return MessageStream::unexpected(answer, message_name(Prepared::type));
    }
    costs_.save = peer_duration(prepared->save_ns);
    costs_.restore = peer_duration(prepared->restore_ns);
    TRY(open_streams());
    copy_control_ = std::make_unique<CopyControl>(
        services_.clock, services_.events, options_.max_bandwidth,
        CopyControl::Hooks{[this] { return check(); }, [this] { return bytes_sent(); },
                           [this] { (void)streams_[0]->send(KeepAlive{}); }});
    copier_ = TRY(Copier::create(services_.vm.memory(), services_.vm.tracker(), carriers(), secret_,
                                 *copy_control_, services_.clock));
    if (options_.verify_full) {
        costs_.verify = 2 * copier_->hashing_time(manifest_.used_pages);
    }
    return {};
}

Result<void> Source::send_boot_image(const vmm::GatheredBytes& image) {
    const auto parts = image.parts();
    TRY(streams_[0]->send(
        Prepare{options_.streams, options_.verify_full, hash_of(parts), keep_ms(options_.retry)},
        deadline()));
    std::size_t offset = 0;
    for (const std::span<const std::byte> part : parts) {
        for (std::size_t begin = 0; begin < part.size();) {
            const std::size_t size = std::min(part.size() - begin, BootImagePart::kMaxPayload);
            const iovec payload = part_of(part.subspan(begin, size));
            TRY(streams_[0]->send(BootImagePart{offset}, {&payload, 1}, deadline()));
            begin += size;
            offset += size;
        }
    }
    return {};
}

// The streams that carry pages.
std::vector<MessageStream*> Source::carriers() const {
    std::vector<MessageStream*> all;
    for (std::size_t i = options_.streams == 0 ? 0 : 1; i < streams_.size(); ++i) {
        all.push_back(streams_[i].get());
    }
    return all;
}

Result<void> Source::open_streams() {
    for (std::uint16_t stream = 0; stream < options_.streams; ++stream) {
        MessageStream& messages = adopt(TRY(services_.connector.connect(deadline())));
        TRY(check());
        TRY(greet(messages, make_hello(Purpose::data, session_, secret_, stream), deadline()));
    }
    return {};
}

Result<void> Source::copy() {
    enter(SourcePhase::copy);
    for (;;) {
        Round round = TRY(this->round(GuestState::running));
        TRY(copier_->collect());
        round.owed_after = copier_->owed_pages();
        learn_from(round);
        rounds_.push_back(round);
        services_.events.on({services_.clock.now(), RoundFinished{round}});
        if (TRY(worth_the_pause())) {
            return {};
        }
    }
}

Result<void> Source::pause() {
    enter(SourcePhase::pause);
    vmm::use_cpu_for(vmm::CpuUse::service);
    pause_ends_ = services_.clock.now() + options_.limits.max_pause;
    reached(Moment::pause_begun);
    // The machine comes to rest within what is left of all limits.
    const vmm::Drain drain = TRY(services_.vm.pause(until_deadline()));
    paused_ = true;
    reached(Moment::paused);
    services_.events.on({services_.clock.now(), Drained{drain}});
    return {};
}

Result<void> Source::final() {
    enter(SourcePhase::final);
    const TimePoint saved_at = services_.clock.now();
    MachineState state{TRY(services_.vm.save()), 0};
    // After saving, which writes guest memory too (the guest's clock pages): before it, those writes are
    // lost.
    TRY(copier_->collect());
    reached(Moment::saved);
    TRY(round(GuestState::paused));
    reached(Moment::last_round_sent);
    if (options_.verify_full) {
        TRY(copier_->verify());
    }
    const Digest digest = copier_->digest();
    TRY(streams_[0]->send(Finish{digest}, deadline()));
    if (clock_warning(clock_difference_)) {
        const Duration elapsed = services_.clock.now() - saved_at + costs_.round_trip / 2;
        state.elapsed_ns = static_cast<std::uint64_t>(elapsed.count());
    }
    TRY(streams_[0]->send(state, deadline()));
    reached(Moment::state_sent);
    TRY(await_ready());
    digest_verified_ = true;
    TRY(services_.vm.give_exclusives(until_deadline()));
    return check();
}

Result<Round> Source::round(GuestState guest) {
    const std::uint64_t owed = copier_->owed_pages();
    copy_control_->round_started(copier_->next_round(), owed, guest);
    const TimePoint begin = services_.clock.now();
    Round round = TRY(copier_->round(guest, deadline(), [this] { copy_control_->idle(); }));
    if (guest == GuestState::running) {
        // What the senders handed over may still be in socket buffers: a round has ended when its pages are
        // placed. Else the pause would begin with that queue, and the rate would be that of memory.
        TRY(await_round_done(round.number));
        round.duration = services_.clock.now() - begin;
        round.link_time = link_time(round);
    }
    TRY(check());
    if (guest == GuestState::paused) {
        rounds_.push_back(round);
        services_.events.on({services_.clock.now(), RoundFinished{round}});
    }
    return round;
}

// On control; a destination that is busy, preparing or placing pages, says so with KeepAlive.
Result<Message> Source::next_answer(const Deadline& deadline) {
    for (;;) {
        Incoming incoming = TRY(streams_[0]->receive(Failed::max_body, deadline));
        if (!std::holds_alternative<KeepAlive>(incoming.message)) {
            return std::move(incoming.message);
        }
    }
}

Result<void> Source::await_ready() {
    const Message answer = TRY(next_answer(deadline()));
    const Digest ours = copier_->digest();
    if (const auto* ready = std::get_if<Ready>(&answer)) {
        reached(Moment::ready_received);
        services_.events.on({services_.clock.now(), DestinationTimes{peer_duration(ready->verify_ns),
                                                                     peer_duration(ready->restore_ns)}});
        if (!(ready->digest == ours)) {
            return fail(Code::mismatch, "the destination is ready with another digest than ours");
        }
        return {};
    }
    if (const auto* mismatch = std::get_if<DigestMismatch>(&answer)) {
        return vmm::Failure{mismatch_error(*mismatch)};
    }
    if (const auto* failed = std::get_if<Failed>(&answer)) {
        return fail(Code::refused, "{}", failed->text);
    }
    return fail(Code::protocol, "the destination sent {} where Ready was due", message_name(answer));
}

Result<std::optional<vmm::Error>> Source::commit() {
    using Answer = std::optional<vmm::Error>;
    enter(SourcePhase::commit);
    {
        const std::lock_guard lock{mutex_};
        if (gate_ != Gate::open) {
            return Answer{vmm::Error{Code::cancelled, "cancelled"}};
        }
        gate_ = Gate::committed;
    }
    if (auto written = record_->update(RecordStatus::committing); !written) {
        // Nothing was sent yet: the last moment at which an error is only an error.
        return Answer{std::move(written).error()};
    }
    TRY(streams_[0]->send(Commit{manifest_.epoch + 1}, deadline()));
    reached(Moment::commit_sent);
    // An absolute deadline: a peer that trickles bytes must not keep the guest paused and the question open.
    const Incoming answer = TRY(
        streams_[0]->receive(Failed::max_body, Deadline::until(services_.clock.now() + Deadline{}.progress)));
    if (const auto* running = std::get_if<Running>(&answer.message)) {
        reached(Moment::running_received);
        services_.events.on({services_.clock.now(), DestinationResumed{peer_duration(running->resume_ns)}});
        return Answer{};
    }
    if (std::holds_alternative<Placed>(answer.message)) {
        reached(Moment::running_received);
        return Answer{};
    }
    // On the connection that carried Ready this is as good as an answer to Query.
    if (const auto* failed = std::get_if<Failed>(&answer.message)) {
        return Answer{vmm::Error{Code::refused, failed->text}};
    }
    return fail(Code::protocol, "the destination sent {} where Running was due",
                message_name(answer.message));
}

void Source::done() {
    enter(SourcePhase::done);
    (void)streams_[0]->send(Acknowledge{});
    (void)record_->update(RecordStatus::done);
    services_.vm.release();
}

Result<void> Source::check() const {
    {
        const std::lock_guard lock{mutex_};
        if (gate_ == Gate::cancelled) {
            return fail(Code::cancelled, "cancelled");
        }
    }
    if (services_.vm.ended()) {
        return fail(Code::guest_ended, "the guest has ended");
    }
    if (auto passed = passed_limit()) {
        return vmm::Failure{std::move(*passed)};
    }
    return {};
}

// Of the user's own limits, the one that has passed.
std::optional<vmm::Error> Source::passed_limit() const {
    const TimePoint now = services_.clock.now();
    if (options_.timeout && now - started_at_ >= *options_.timeout) {
        return vmm::Error{Code::timeout, fmt::format("it took longer than the {:.0f} ms of --timeout",
                                                     vmm::to_ms(*options_.timeout))};
    }
    if (pause_ends_ && now >= *pause_ends_) {
        return vmm::Error{Code::timeout,
                          fmt::format("the pause would have been longer than the {:.0f} ms of --max-pause",
                                      vmm::to_ms(options_.limits.max_pause))};
    }
    return std::nullopt;
}

Deadline Source::deadline() const {
    Deadline deadline;
    if (options_.timeout) {
        deadline.at = started_at_ + *options_.timeout;
    }
    if (pause_ends_) {
        // The one deadline of the pause; hashing all memory may take longer than a silence elsewhere means.
        deadline.progress = Duration::max();
        deadline.at = std::min(deadline.at.value_or(TimePoint::max()), *pause_ends_);
    }
    return deadline;
}

// What is left of the pause.
Duration Source::until_deadline() const {
    return std::max(*deadline().at - services_.clock.now(), Duration::zero());
}

std::uint64_t Source::bytes_sent() const {
    const std::lock_guard lock{mutex_};
    std::uint64_t total = retired_bytes_;
    for (const auto& stream : streams_) {
        total += stream->bytes_sent();
    }
    return total;
}

MessageStream& Source::adopt(std::unique_ptr<Transport> transport) {
    const std::lock_guard lock{mutex_};
    streams_.push_back(std::make_unique<MessageStream>(std::move(transport)));
    return *streams_.back();
}

void Source::enter(SourcePhase phase) {
    phase_ = phase;
    services_.events.on({services_.clock.now(), SourceEntered{phase}});
}

void Source::reached(Moment moment) {
    services_.events.on({services_.clock.now(), Reached{moment}});
}

}  // namespace migration
