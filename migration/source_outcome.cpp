// How a migration ends at the source when it does not simply succeed: rollback, Query, and a person's
// decision.
#include <algorithm>

#include "migration/greeting.hpp"
#include "migration/source.hpp"

namespace migration {

using vmm::Code;
using vmm::TimePoint;

namespace {

constexpr vmm::Duration kAskEvery = std::chrono::seconds{1};
constexpr std::size_t kMaxNamed = 64;  // pages a mismatch collects

std::string_view code_name(Code code) {
    switch (code) {
        case Code::io:
            return "io";
        case Code::kvm:
            return "kvm";
        case Code::closed:
            return "connection_lost";
        case Code::timeout:
            return "timeout";
        case Code::cancelled:
            return "cancelled";
        case Code::protocol:
            return "protocol";
        case Code::foreign:
            return "not_vmm";
        case Code::version:
            return "version";
        case Code::limit:
            return "limit";
        case Code::corrupt:
            return "corrupt";
        case Code::mismatch:
            return "mismatch";
        case Code::unsupported:
            return "unsupported";
        case Code::invalid:
            return "invalid";
        case Code::refused:
            return "refused";
        case Code::guest_ended:
            return "guest_ended";
    }
    return "unknown";
}

std::string_view remedy_for(Code code) {
    switch (code) {
        case Code::io:
        case Code::closed:
            return "check the network and that `vmm receive` runs there, then migrate again";
        case Code::timeout:
            return "check the load of the network and of the destination, or allow more time (--timeout, "
                   "--max-pause), then migrate again";
        case Code::foreign:
            return "check the address and the port: is it `vmm receive` that listens there?";
        case Code::protocol:
        case Code::version:
            return "use the same version of vmm on both hosts";
        case Code::limit:
            return "allow a longer --max-downtime, use more --streams or a faster link, or quiet the guest";
        case Code::guest_ended:
            return "nothing: there is no guest to move any more";
        case Code::cancelled:
            return "migrate again when it suits";
        default:
            return "see the log of the destination, then migrate again";
    }
}

}  // namespace

Reason Source::reason_for(const vmm::Error& error) const {
    return {std::string{code_name(error.code())}, error.text().substr(0, kMaxTextBytes),
            fmt::format("phase {}", name_of(phase_)), std::string{remedy_for(error.code())}};
}

bool Source::cancel() {
    const std::lock_guard lock{mutex_};
    if (gate_ != Gate::open) {
        return gate_ == Gate::cancelled;
    }
    gate_ = Gate::cancelled;
    // Whatever the source waits for ends now.
    for (const auto& stream : streams_) {
        stream->shutdown();
    }
    changed_.notify_all();
    return true;
}

bool Source::resolve(Resolution resolution) {
    const std::lock_guard lock{mutex_};
    if (gate_ != Gate::unknown || resolution_) {
        return false;
    }
    resolution_ = resolution;
    changed_.notify_all();
    return true;
}

Outcome Source::roll_back(vmm::Error error) {
    bool cancelled = false;
    {
        const std::lock_guard lock{mutex_};
        // The error of a cancelled migration is only what the shutdown looked like from inside.
        cancelled = gate_ == Gate::cancelled;
        gate_ = Gate::settled;
    }
    resume_here();
    // A wait that ran into a limit of the user's says only that the peer was slow.
    auto passed = passed_limit();
    // In the pause itself there is no peer: what did not come to rest is what matters.
    const bool ran_into_limit = passed && error.code() == Code::timeout && phase_ != SourcePhase::pause;
    if (ran_into_limit) {
        error = std::move(*passed);
    }
    // In the pause both sides may have blocked in a send: ours the state, theirs the reason why it is not
    // wanted.
    const bool may_have_spoken = error.code() == Code::closed || error.code() == Code::io ||
                                 (ran_into_limit && phase_ == SourcePhase::final);
    if (may_have_spoken) {
        error = last_word(std::move(error));
    }
    std::vector<Reason> reasons = std::move(refusals_);
    if (reasons.empty()) {
        const vmm::Error shown =
            cancelled ? vmm::Error{Code::cancelled, "cancelled"}
                      : vmm::Error{error.code(), error.text() + (inventories_ > 0 ? name_mismatch() : "")};
        reasons.push_back(reason_for(shown));
    }
    if (not_resumed_) {
        reasons.push_back({"not_resumed", not_resumed_->text().substr(0, kMaxTextBytes), "the guest",
                           services_.vm.ended() ? "it has crashed and is gone here: start it again"
                                                : "when what it names is free again: `vmm resume NAME`"});
    }
    if (!streams_.empty()) {
        const Deadline soon = Deadline::until(services_.clock.now() + std::chrono::seconds{1});
        (void)streams_[0]->send(Cancel{reasons.front().what}, soon);
    }
    if (record_) {
        (void)record_->update(RecordStatus::done);
        if (options_.retry) {
            (void)ask(std::chrono::seconds{
                1});  // whatever it is told, a destination that waits for us waits no longer
        }
    }
    return finish(cancelled ? Outcome::cancelled : Outcome::failed, std::move(reasons));
}

void Source::resume_here() {
    if (!std::exchange(paused_, false)) {
        return;
    }
    if (auto resumed = services_.vm.resume(); !resumed) {
        not_resumed_ = std::move(resumed).error();
    }
}

vmm::Error Source::last_word(vmm::Error error) {
    if (streams_.empty()) {
        return error;
    }
    const Deadline soon = Deadline::until(services_.clock.now() + std::chrono::milliseconds{200});
    const auto incoming = streams_[0]->receive(Failed::max_body, soon);
    if (!incoming) {
        return error;
    }
    if (const auto* failed = std::get_if<Failed>(&incoming->message)) {
        return {Code::refused, failed->text};
    }
    if (const auto* mismatch = std::get_if<DigestMismatch>(&incoming->message);
        mismatch != nullptr && phase_ == SourcePhase::final) {
        return mismatch_error(*mismatch);
    }
    return error;
}

vmm::Error Source::mismatch_error(const DigestMismatch& mismatch) {
    inventories_ = mismatch.inventories;
    return {Code::mismatch, "the destination's memory differs from what was sent"};
}

std::string Source::name_mismatch() {
    const PageTable& table = copier_->table();
    auto theirs = PageTable::create(table.size(), secret_);
    // The peer's word decides neither how long this takes nor how much it keeps.
    const auto read =
        theirs ? read_inventories(inventories_, Deadline::until(services_.clock.now() + Deadline{}.progress),
                                  *theirs)
               : vmm::Failure{theirs.error()};
    if (!read || !*read) {
        return "; the destination did not say which pages";
    }
    std::vector<std::uint64_t> pages;
    for (std::uint64_t page = 0; page < table.size() && pages.size() < kMaxNamed; ++page) {
        if (!(table.entry(page) == theirs->entry(page))) {
            pages.push_back(page);
        }
    }
    return pages.empty() ? "; its own table agrees with ours, so memory changed after it was placed"
                         : ": " + name_pages(pages);
}

vmm::Result<bool> Source::read_inventories(std::uint32_t count, const Deadline& deadline, PageTable& into) {
    std::uint64_t next = 0;
    Digest sum;
    for (std::uint32_t i = 0; i < count; ++i) {
        const auto inventory = TRY(streams_[0]->expect<Inventory>(deadline));
        if (inventory.first < next || inventory.hashes.empty() || inventory.first > into.size() ||
            inventory.hashes.size() > into.size() - inventory.first) {
            return false;
        }
        next = inventory.first + inventory.hashes.size();
        for (std::uint64_t j = 0; j < inventory.hashes.size(); ++j) {
            into.set(inventory.first + j, inventory.hashes[j], sum);
        }
    }
    return true;
}

QueryOutcome Source::ask(vmm::Duration limit) {
    const Deadline soon = Deadline::until(services_.clock.now() + limit);
    auto transport = services_.connector.connect(soon);
    if (!transport) {
        return QueryOutcome::unknown;
    }
    MessageStream stream{std::move(*transport)};
    const Hello hello = make_hello(Purpose::query, session_, secret_);
    if (!stream.introduce(hello, soon) || !stream.send(hello, soon)) {
        return QueryOutcome::unknown;
    }
    const auto answer = stream.expect<QueryAnswer>(soon);
    if (!answer) {
        return QueryOutcome::unknown;
    }
    if (answer->outcome != QueryOutcome::unknown) {
        (void)stream.send(Acknowledge{}, soon);
    }
    return answer->outcome;
}

std::optional<Outcome> Source::act_on(QueryOutcome answer) {
    switch (answer) {
        case QueryOutcome::running:
            (void)record_->update(RecordStatus::done);
            enter(SourcePhase::done);
            services_.vm.release();
            return finish(Outcome::completed, overtaken(Resolution::resume));
        case QueryOutcome::refused:
        case QueryOutcome::failed:
            return roll_back(
                {Code::refused, std::string{answer == QueryOutcome::refused
                                                ? "the destination did not start the guest, and never will"
                                                : "the destination could not start the guest"} +
                                    (overtaken(Resolution::discard).empty()
                                         ? ""
                                         : "; it answered before `vmm resolve --discard` could be done")});
        case QueryOutcome::lost:
        case QueryOutcome::unknown:
            return std::nullopt;
    }
    return std::nullopt;
}

// The destination knows; a person only believes. Where both spoke at once, its word counts, and is said.
std::vector<Reason> Source::overtaken(Resolution contrary) const {
    const std::lock_guard lock{mutex_};
    if (resolution_ != contrary) {
        return {};
    }
    return {{"overtaken",
             "the destination answered, before `vmm resolve` could be done, that the guest runs there",
             fmt::format("session {}", session_name_), "nothing"}};
}

std::optional<Outcome> Source::act_on_resolution() {
    std::optional<Resolution> resolution;
    {
        const std::lock_guard lock{mutex_};
        resolution = resolution_;
    }
    if (!resolution) {
        return std::nullopt;
    }
    if (*resolution == Resolution::resume) {
        return roll_back({Code::refused, "resumed here by `vmm resolve --resume`"});
    }
    (void)record_->update(RecordStatus::done);
    services_.vm.release();
    return finish(Outcome::completed, {{"discarded", "discarded here by `vmm resolve --discard`",
                                        fmt::format("phase {}", name_of(phase_)), "nothing"}});
}

Outcome Source::settle() {
    // run() asks for a while before it reports `unknown`; called again, it asks until there is an answer.
    bool first = false;
    {
        const std::lock_guard lock{mutex_};
        first = gate_ != Gate::unknown;
        gate_ = Gate::unknown;
    }
    // What has not left yet of Commit must not leave later, when a person may have decided otherwise.
    streams_[0]->abort();
    const TimePoint patience_ends = services_.clock.now() + options_.query_patience;
    bool lost = false;
    for (;;) {
        // As soon as it can be had: a destination that was told to start later then cannot.
        services_.vm.take_exclusives();
        if (auto outcome = act_on_resolution()) {
            return *outcome;
        }
        if (!lost) {
            const QueryOutcome answer = ask(Deadline{}.progress);
            lost = answer == QueryOutcome::lost;
            if (auto outcome = act_on(answer)) {
                return *outcome;
            }
        }
        if (first && (lost || services_.clock.now() >= patience_ends)) {
            return finish(Outcome::unknown, {{lost ? "lost" : "unknown",
                                              lost ? "the destination took the guest over and died with it"
                                                   : "the destination does not say whether it runs the guest",
                                              fmt::format("session {}", session_name_),
                                              "find out there: where it runs, `vmm resolve NAME --discard`; "
                                              "else end its process there, then `--resume`"}});
        }
        std::unique_lock lock{mutex_};
        changed_.wait_for(lock, lost ? std::chrono::hours{1} : kAskEvery,
                          [this] { return resolution_.has_value(); });
    }
}

Outcome Source::finish(Outcome outcome, std::vector<Reason> reasons) {
    if (outcome != Outcome::unknown) {
        const std::lock_guard lock{mutex_};
        gate_ = Gate::settled;
    }
    const std::uint64_t sent = bytes_sent();
    // Not in the pause any more: the guest runs, here or there, or waits for a person.
    copier_.reset();
    services_.events.on({services_.clock.now(), Ended{outcome, std::move(reasons), sent, digest_verified_}});
    if (outcome != Outcome::unknown) {
        const std::lock_guard lock{mutex_};
        for (const auto& stream : streams_) {
            stream->shutdown();
        }
        record_.reset();
    }
    return outcome;
}

}  // namespace migration
