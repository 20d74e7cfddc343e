#include "migration/destination.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>

#include "vmm/guest/population.hpp"

namespace migration {

using vmm::Result;

Destination::Destination(const Hello& hello, std::string peer, DestinationServices services)
    : session_(hello.session),
      secret_(hello.secret),
      peer_(std::move(peer)),
      purpose_(hello.purpose),
      services_(services) {
    entered_.push_back(DestinationPhase::greeted);
    announce();
}

Step Destination::on(const Message& message, std::span<const std::byte> payload) {
    Step step;
    {
        const std::lock_guard lock{mutex_};
        step = std::visit(
            [&](auto& state, const auto& m) -> Step {
                using StateType = std::decay_t<decltype(state)>;
                using MessageT = std::decay_t<decltype(m)>;
                if constexpr (std::is_same_v<MessageT, BootImagePart> &&
                              std::is_same_v<StateType, Configured>) {
                    return handle(state, m, payload);
                } else if constexpr (requires { handle(state, m); }) {
                    return handle(state, m);
                } else if constexpr (std::is_same_v<StateType, Receiving> &&
                                     std::is_same_v<MessageT, KeepAlive>) {
                    return {};
                } else if constexpr (std::is_same_v<StateType, Started>) {
                    // The guest runs, whatever the peer says now; Acknowledge is what it should say.
                    if (std::is_same_v<MessageT, Acknowledge> && !std::exchange(acknowledged_, true)) {
                        (void)state.record->update(RecordStatus::done);
                    }
                    return {{}, true};
                } else if constexpr (std::is_same_v<StateType, Refused> ||
                                     std::is_same_v<StateType, Broken>) {
                    return {{Failed{failure_}}, true};
                } else if constexpr (std::is_same_v<MessageT, Cancel>) {
                    refuse(m.text.empty() ? "cancelled by the source" : m.text);
                    return {{}, true};
                } else {
                    return fail(fmt::format("{} is out of place now", message_name(message)));
                }
            },
            state_, message);
    }
    announce();
    return step;
}

Step Destination::handle(Greeted&, const Manifest& manifest) {
    const vmm::TimePoint start = services_.clock.now();
    PreflightReply reply = services_.vm.examine(manifest);
    reply.realtime_ns = static_cast<std::uint64_t>(services_.clock.realtime_ns());
    reply.spent_ns = static_cast<std::uint64_t>((services_.clock.now() - start).count());
    if (!reply.reasons.empty()) {
        refuse("refused in preflight");
        return {{std::move(reply)}, true};
    }
    enter(DestinationPhase::configured, Configured{manifest, std::nullopt, {}, 0});
    return {{std::move(reply)}, false};
}

Step Destination::handle(Configured& state, const Probe& probe) {
    if (++state.probes > Probe::kMaxProbes) {
        return fail("more Probes than a measurement needs");
    }
    return probe.last ? Step{{Probed{}}, false} : Step{};
}

Step Destination::handle(Configured& state, const Prepare& prepare) {
    if (purpose_ != Purpose::control) {
        return fail("a session for preflight cannot bring a guest");
    }
    if (state.prepare) {
        return fail("Prepare came twice");
    }
    state.prepare = prepare;
    return state.manifest.boot_image_bytes == 0 ? prepare_machine(state) : Step{};
}

Step Destination::handle(Configured& state, const BootImagePart& part, std::span<const std::byte> payload) {
    // Grows only by what has really arrived, up to the size that preflight accepted.
    if (!state.prepare || part.offset != state.boot_image.size() || payload.empty() ||
        payload.size() > state.manifest.boot_image_bytes - state.boot_image.size()) {
        return fail("a part of the boot image is out of place");
    }
    state.boot_image.reserve(state.manifest.boot_image_bytes);  // addresses; memory follows the bytes
    state.boot_image.insert(state.boot_image.end(), payload.begin(), payload.end());
    return state.boot_image.size() == state.manifest.boot_image_bytes ? prepare_machine(state) : Step{};
}

Step Destination::prepare_machine(Configured& state) {
    if (XXH3_64bits(state.boot_image.data(), state.boot_image.size()) != state.prepare->boot_image_hash) {
        return fail("the boot image arrived damaged");
    }
    const auto costs = services_.vm.prepare(state.manifest, state.boot_image);
    if (!costs) {
        return fail(fmt::format("prepare: {}", costs.error().text()));
    }
    auto table = PageTable::create(services_.vm.memory().page_limit(), secret_);
    if (!table) {
        return fail(table.error().text());
    }
    Record record;
    record.role = Role::destination;
    record.status = RecordStatus::ready;
    record.session = session_;
    record.secret = secret_;
    record.uuid = state.manifest.uuid;
    record.boot_id = services_.boot_id;
    record.epoch = state.manifest.epoch + 1;
    record.name = state.manifest.name;
    record.peer = peer_.substr(0, 128);
    auto handle = services_.records.create(record);
    if (!handle) {
        return fail(handle.error().text());
    }
    table_ = std::make_unique<PageTable>(std::move(*table));
    streams_ = state.prepare->streams;
    verify_full_ = state.prepare->verify_full;
    keep_ = std::min<vmm::Duration>(std::chrono::milliseconds{state.prepare->keep_ms}, kMaxKeep);
    begin_receiving(std::move(state.manifest), std::move(*handle), 0);
    return {{Prepared{static_cast<std::uint64_t>(costs->save.count()),
                      static_cast<std::uint64_t>(costs->restore.count())}},
            false};
}

PageReceiver* Destination::receiver(std::uint16_t stream) {
    const std::lock_guard lock{mutex_};
    const auto* receiving = std::get_if<Receiving>(&state_);
    if (receiving == nullptr || stream >= receiving->quiet.size() || receiving->quiet[stream]) {
        return nullptr;
    }
    return receivers_[stream].get();
}

Result<std::optional<RoundDone>> Destination::round_end(std::uint16_t stream, const RoundEnd& mark) {
    const std::lock_guard lock{mutex_};
    auto* receiving = std::get_if<Receiving>(&state_);
    if (receiving == nullptr || stream >= receiving->quiet.size() || receiving->quiet[stream] ||
        mark.round != receiving->rounds[stream]) {
        return vmm::fail(vmm::Code::protocol, "RoundEnd {} on stream {} is out of place", mark.round, stream);
    }
    receiving->quiet[stream] = mark.last;
    receiving->rounds[stream] = mark.round + 1;
    const std::uint32_t slowest = *std::min_element(receiving->rounds.begin(), receiving->rounds.end());
    if (mark.last || slowest != mark.round + 1) {
        return std::optional<RoundDone>{};
    }
    return std::optional{RoundDone{mark.round}};
}

bool Destination::quiet() const {
    const std::lock_guard lock{mutex_};
    const auto* receiving = std::get_if<Receiving>(&state_);
    return receiving != nullptr &&
           std::all_of(receiving->quiet.begin(), receiving->quiet.end(), [](bool q) { return q; });
}

Digest Destination::digest_of_streams() const {
    Digest sum = digest_before_;
    for (const auto& receiver : receivers_) {
        sum = add(sum, receiver->digest_part());
    }
    return sum;
}

Digest Destination::entry_in_memory(std::uint64_t page) const {
    return table_->hasher().entry_for(*services_.vm.memory().pages({page, 1}));
}

// In the pause: of the pages that have no memory nothing is looked at.
Result<Digest> Destination::rehash() const {
    const vmm::Bitmap populated = TRY(vmm::populated_pages(services_.vm.memory()));
    Digest sum;
    for (auto run = populated.next_run(0, populated.size()); run.count != 0;
         run = populated.next_run(run.first + run.count, populated.size())) {
        for (std::uint64_t page = run.first; page < run.first + run.count; ++page) {
            if (const Digest entry = entry_in_memory(page); !(entry == Digest{})) {
                sum = add(sum, table_->hasher().contribution(page, entry));
            }
        }
    }
    return sum;
}

Step Destination::handle(Receiving& state, const Finish& finish) {
    if (!std::all_of(state.quiet.begin(), state.quiet.end(), [](bool q) { return q; })) {
        return fail("Finish came before the last pages");
    }
    const vmm::TimePoint start = services_.clock.now();
    const Result<Digest> hashed = verify_full_ ? rehash() : digest_of_streams();
    if (!hashed) {
        return fail(hashed.error().text());
    }
    const Digest ours = *hashed;
    if (!(ours == finish.digest)) {
        return mismatch(ours);
    }
    enter(DestinationPhase::verified,
          Verified{std::move(state.manifest), std::move(state.record), ours, services_.clock.now() - start});
    return {};
}

Step Destination::mismatch(const Digest& ours) {
    Step step;
    DigestMismatch head;
    head.digest = ours;
    std::vector<Message> table = inventories();
    head.inventories = static_cast<std::uint32_t>(table.size());
    step.replies.push_back(head);
    step.replies.insert(step.replies.end(), std::make_move_iterator(table.begin()),
                        std::make_move_iterator(table.end()));
    // The state that follows Finish is still to be read: closing now could take the inventory down with it.
    refuse("memory differs from the source's digest");
    return step;
}

Step Destination::handle(Verified& state, const MachineState& message) {
    const vmm::TimePoint start = services_.clock.now();
    std::optional<vmm::Duration> elapsed;
    if (message.elapsed_ns != 0) {
        // The source sent it behind the digest, and we have compared that first.
        elapsed = peer_duration(message.elapsed_ns) + state.verify;
    }
    if (const auto restored = services_.vm.restore(message.snapshot, elapsed); !restored) {
        return fail(fmt::format("restore: {}", restored.error().text()));
    }
    const vmm::Duration restore = services_.clock.now() - start;
    const Ready ready{state.digest, static_cast<std::uint64_t>(state.verify.count()),
                      static_cast<std::uint64_t>(restore.count())};
    enter(DestinationPhase::loaded, Loaded{std::move(state.manifest), std::move(state.record)});
    return {{ready}, false};
}

Step Destination::handle(Loaded& state, const Commit& commit) {
    const vmm::TimePoint received = services_.clock.now();
    if (commit.epoch != state.manifest.epoch + 1) {
        return fail(fmt::format("Commit for epoch {}, expected {}", commit.epoch, state.manifest.epoch + 1));
    }
    if (const auto taken = services_.vm.take_exclusives(); !taken) {
        services_.vm.give_exclusives();
        return fail(taken.error().text());
    }
    if (const auto written = state.record->update(RecordStatus::started); !written) {
        services_.vm.give_exclusives();
        return fail(written.error().text());
    }
    // From here to the end of start() a crash of this process leaves `started`: it may have run, so it counts
    // as ours.
    const auto entry = services_.vm.start();
    if (!entry) {
        // No thread ever called KVM_RUN. If the tombstone cannot be written the record still says `started`;
        // the answer on this connection is true all the same.
        services_.vm.give_exclusives();
        (void)state.record->update(RecordStatus::failed);
        failure_ = fmt::format("start: {}", entry.error().text()).substr(0, kMaxTextBytes);
        enter(DestinationPhase::failed, Broken{take_record()});
        return {{Failed{failure_}}, true};
    }
    const vmm::Duration resume = services_.clock.now() - received;
    // Best effort: without it whoever answers for us from the record says `unknown`, never anything false.
    (void)state.record->update(RecordStatus::running);
    enter(DestinationPhase::started, Started{std::move(state.record)});
    if (*entry == DestinationVm::Entry::placed) {
        return {{Placed{}}, false};
    }
    return {{Running{static_cast<std::uint64_t>(resume.count())}}, false};
}

std::unique_ptr<RecordHandle> Destination::take_record() {
    return std::visit(
        [](auto& state) -> std::unique_ptr<RecordHandle> {
            if constexpr (requires { state.record; }) {
                return std::move(state.record);
            } else {
                return nullptr;
            }
        },
        state_);
}

void Destination::refuse(std::string why) {
    std::unique_ptr<RecordHandle> record = take_record();
    if (record) {
        // Best effort: a record that stays `ready` is answered `refused` too once this process is gone.
        (void)record->update(RecordStatus::refused);
    }
    why.resize(std::min(why.size(), kMaxTextBytes));
    failure_ = std::move(why);
    enter(DestinationPhase::refused, Refused{std::move(record)});
}

Step Destination::fail(std::string text) {
    text.resize(std::min(text.size(), kMaxTextBytes));
    refuse(text);
    return {{Failed{std::move(text)}}, true};
}

void Destination::disconnected(const vmm::Error& why) {
    {
        const std::lock_guard lock{mutex_};
        const bool over = std::holds_alternative<Started>(state_) ||
                          std::holds_alternative<Refused>(state_) || std::holds_alternative<Broken>(state_);
        if (!over) {
            refuse(why.text());
        }
    }
    announce();
}

QueryOutcome Destination::query() {
    QueryOutcome outcome{};
    {
        const std::lock_guard lock{mutex_};
        if (std::holds_alternative<Started>(state_)) {
            outcome = QueryOutcome::running;
        } else if (std::holds_alternative<Broken>(state_)) {
            outcome = QueryOutcome::failed;
        } else {
            // The record first: an answer without one would not outlive this process, nor this host's next
            // boot.
            std::unique_ptr<RecordHandle> record = take_record();
            const bool recorded = !record || (record->update(RecordStatus::refused) && record->sync());
            outcome = recorded ? QueryOutcome::refused : QueryOutcome::unknown;
            if (!std::holds_alternative<Refused>(state_)) {
                failure_ = "the source asked what became of the session before it committed";
                enter(DestinationPhase::refused, Refused{});
            }
            std::get<Refused>(state_).record = std::move(record);
        }
    }
    announce();
    return outcome;
}

DestinationPhase Destination::phase() const {
    const std::lock_guard lock{mutex_};
    return static_cast<DestinationPhase>(state_.index());
}

std::uint16_t Destination::streams() const {
    const std::lock_guard lock{mutex_};
    return streams_;
}

bool Destination::acknowledged() const {
    const std::lock_guard lock{mutex_};
    return acknowledged_;
}

std::string Destination::failure() const {
    const std::lock_guard lock{mutex_};
    return failure_;
}

void Destination::enter(DestinationPhase phase, State state) {
    state_ = std::move(state);
    VERIFY(state_.index() == static_cast<std::size_t>(phase));
    entered_.push_back(phase);
}

void Destination::announce() {
    std::vector<DestinationPhase> entered;
    {
        const std::lock_guard lock{mutex_};
        entered.swap(entered_);
    }
    for (const DestinationPhase phase : entered) {
        services_.events.on({services_.clock.now(), DestinationEntered{phase, to_hex(session_)}});
    }
}

}  // namespace migration
