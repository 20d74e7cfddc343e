// A connection that breaks before Commit, with --retry: the migration goes on with what the destination
// holds, and what it holds is what its memory says.
#include <catch2/catch.hpp>

#include "tests/support/receiver.hpp"

using namespace migration;
using namespace tests;
using namespace std::chrono_literals;

namespace {

SourceOptions with_retry(std::uint16_t streams) {
    SourceOptions options;
    options.streams = streams;
    options.retry = 20s;
    return options;
}

void fill(Bed& bed, std::uint64_t pages) {
    for (std::uint64_t page = 0; page < pages; ++page) {
        fill_page(bed.source.memory(), page, 1);
    }
}

void check_moved(Bed& bed) {
    CHECK(bed.receiver.vm.running);
    CHECK(!bed.source.running);
    CHECK(bed.source.released);
    CHECK(!first_difference(bed.source.memory(), bed.receiver.vm.memory()));
    using enum RecordStatus;
    CHECK(bed.source_records.history(Role::source) == std::vector{intent, committing, done});
    CHECK(bed.receiver.records.history(Role::destination) == std::vector{ready, started, running, done});
}

}  // namespace

// Round 0 has arrived, for RoundDone has; of what was under way when the link broke nobody can say.
TEST_CASE("a link that breaks behind the rounds, and comes back, costs what was on its way", "[migration]") {
    const auto streams = GENERATE(std::uint16_t{0}, std::uint16_t{1}, std::uint16_t{3});
    constexpr std::uint64_t pages = 3 * kChunkPages;
    constexpr std::uint64_t written = 500;  // by the pause, in the chunk of the first stream
    Bed bed{pages};
    fill(bed, pages);
    bool saved = false;
    bed.source.on_save = [&] {
        for (std::uint64_t page = 0; page < written && !saved; ++page) {
            bed.source.guest_writes(page, 2);
        }
        saved = true;
    };
    // In the middle of these pages, on the connection that carries them.
    const std::uint64_t carried = pages / std::max<std::uint64_t>(streams, 1);
    bed.receiver.faults.resize(streams == 0 ? 1 : 2);
    bed.receiver.faults.back() = {Fault::Kind::cut, Fault::Direction::send,
                                  (carried + written / 2) * vmm::kPageSize};
    const Outcome outcome = bed.migrate(with_retry(streams));
    INFO(streams << " streams: "
                 << (bed.migration_report.reasons.empty() ? "" : bed.migration_report.reasons.front().what));
    REQUIRE(outcome == Outcome::completed);
    check_moved(bed);
    const std::vector<Resumed>& resumes = bed.migration_report.resumes;
    REQUIRE(resumes.size() == 1);
    CHECK(resumes.front().kept_pages >= pages - written);
    CHECK(resumes.front().owed_pages <= written);
    std::uint64_t sent = 0;
    for (const Round& round : bed.migration_report.rounds) {
        sent += round.data_pages;
    }
    CHECK(sent <= pages + written);  // of rounds that ended: what had arrived was not sent again
}

// Every place matters: in a page that was there before, behind a page of which the table knows nothing yet,
// in the pause, behind the loaded state.
TEST_CASE("a session broken at any byte before Commit goes on, and is right", "[migration]") {
    const auto connection = GENERATE(std::size_t{0}, std::size_t{1});
    const auto direction = GENERATE(Fault::Direction::send, Fault::Direction::receive);
    const auto run = [&](Fault fault) {
        auto bed = std::make_unique<Bed>(24);
        fill(*bed, 4);
        // Rewritten while round 0 is on its way, and back again: equal hashes prove nothing then.
        int writes = 0;
        bed->receiver.before_send = [bed = bed.get(), writes]() mutable {
            if (bed->source.running && ++writes < 12) {
                bed->source.guest_writes(3, writes % 2 == 0 ? 1 : 2);
            }
        };
        bool saved = false;
        bed->source.on_save = [bed = bed.get(), saved]() mutable {
            if (!std::exchange(saved, true)) {
                bed->source.guest_writes(5, 2);
            }
        };
        // What was sent in a pause that came to nothing is written again afterwards.
        int copies = 0;
        bed->events.on_source = [bed = bed.get(), copies](SourcePhase phase) mutable {
            if (phase == SourcePhase::copy && ++copies > 1) {
                bed->source.guest_writes(5, 3);
            }
        };
        bed->receiver.faults.resize(connection + 1);
        bed->receiver.faults[connection] = fault;
        bed->migrate(with_retry(static_cast<std::uint16_t>(connection)));
        return bed;
    };
    const auto whole = run({});
    REQUIRE(whole->migration_report.outcome == Outcome::completed);
    const std::uint64_t size = direction == Fault::Direction::send ? whole->receiver.sent(connection)
                                                                   : whole->receiver.received(connection);
    int resumed = 0;
    for (std::uint64_t byte = 0; byte < size; byte += direction == Fault::Direction::send ? 97 : 5) {
        const auto bed = run({Fault::Kind::cut, direction, byte});
        const auto& reasons = bed->migration_report.reasons;
        INFO("cut before byte " << byte << " of " << size << ": "
                                << (reasons.empty() ? "" : reasons.front().what));
        REQUIRE(bed->source.running != bed->receiver.vm.running);
        REQUIRE(bed->source.released == bed->receiver.vm.running);
        if (bed->receiver.vm.running) {
            REQUIRE(!first_difference(bed->source.memory(), bed->receiver.vm.memory()));
        }
        if (!bed->migration_report.resumes.empty()) {
            REQUIRE(bed->receiver.vm.running);
            ++resumed;
        }
    }
    // A data connection brings nothing back but the answer to its Hello, before there is anything to keep.
    const bool nothing_kept = connection == 1 && direction == Fault::Direction::receive;
    CHECK(nothing_kept == (resumed == 0));
}

TEST_CASE("without --retry nothing is kept", "[migration]") {
    Bed bed{2 * kChunkPages};
    fill(bed, 2 * kChunkPages);
    bed.receiver.faults = {{}, {Fault::Kind::cut, Fault::Direction::send, 2'000'000}};
    SourceOptions options;
    options.streams = 1;
    CHECK(bed.migrate(options) == Outcome::failed);
    CHECK(bed.source.running);
    CHECK(bed.receiver.records.status(Role::destination) == RecordStatus::refused);
    CHECK(bed.migration_report.resumes.empty());
}

TEST_CASE("a cancel while the link is down leaves the guest running at the source", "[migration]") {
    Bed bed{2 * kChunkPages};
    fill(bed, 2 * kChunkPages);
    bed.receiver.faults = {{}, {Fault::Kind::cut, Fault::Direction::send, 2'000'000}};
    std::atomic<bool> cancelled = false;
    bed.events.on_destination = [&](DestinationPhase phase) {
        if (phase == DestinationPhase::parked) {
            cancelled = bed.engine->cancel();
        }
    };
    CHECK(bed.migrate(with_retry(1)) == Outcome::cancelled);
    CHECK(cancelled);
    CHECK(bed.source.running);
    CHECK(!bed.receiver.vm.running);
}

namespace {

// A destination that had said Ready when its connection broke.
struct ParkedBehindReady {
    ParkedBehindReady() {
        Manifest manifest;
        manifest.name = "guest";
        manifest.ram_bytes = 8 * vmm::kPageSize;
        destination.on(manifest);
        // XXH3-64 of nothing: no boot image.
        destination.on(Prepare{0, false, 0x2d06800538d394c2, 1000});
        REQUIRE(destination.round_end(0, {0, true}));
        destination.on(Finish{});
        destination.on(MachineState{vmm::Bytes(8), 0});
        REQUIRE(destination.phase() == DestinationPhase::loaded);
        REQUIRE(destination.park());
    }

    static Hello hello() {
        Hello hello;
        hello.versions = {kProtocolVersion};
        return hello;
    }

    ScriptedDestination vm;
    MemoryRecords records;
    EventLog events;
    Destination destination{hello(), "peer", {vm, records, vmm::real_clock(), events, {}}};
};

}  // namespace

TEST_CASE("a parked session cannot start: a late Commit ends it", "[migration]") {
    ParkedBehindReady parked;
    CHECK(parked.destination.on(Commit{1}).close);
    CHECK(!parked.vm.running);
    CHECK(parked.destination.phase() == DestinationPhase::refused);
    CHECK(parked.records.history(Role::destination) ==
          std::vector{RecordStatus::ready, RecordStatus::refused});
}

TEST_CASE("Query ends a parked session for ever", "[migration]") {
    ParkedBehindReady parked;
    CHECK(parked.destination.query() == QueryOutcome::refused);
    CHECK(parked.records.status(Role::destination) == RecordStatus::refused);
    CHECK(!parked.destination.resumable());
    CHECK(!parked.destination.park());
    const Message late = GENERATE(Message{Resume{1}}, Message{Commit{1}});
    CHECK(parked.destination.on(late).close);
    CHECK(!parked.vm.running);
    CHECK(parked.destination.phase() == DestinationPhase::refused);
}

TEST_CASE("a destination that is resumed shows what its memory holds, not what it was told", "[migration]") {
    ParkedBehindReady parked;
    fill_page(parked.vm.memory(), 2, 9);
    const Step step = parked.destination.on(Resume{7});
    REQUIRE(step.replies.size() == 2);
    CHECK(std::get<Held>(step.replies[0]).inventories == 1);
    const auto& inventory = std::get<Inventory>(step.replies[1]);
    CHECK(!(inventory.hashes.at(2) == Digest{}));
    CHECK(inventory.hashes.at(1) == Digest{});
    CHECK(parked.destination.round_end(0, {7, true}));
    CHECK(parked.destination.on(Finish{}).replies.size() >= 1);  // another digest: it holds that page
}

namespace {

// A Copier that has sent all of a small guest in two rounds, to somebody who does not matter.
struct Copied {
    static constexpr std::uint64_t kPages = 64;

    Copied() {
        for (std::uint64_t page = 0; page < kPages; ++page) {
            fill_page(memory, page, 1);
        }
        auto made = Copier::create(memory, log, {&stream()}, kSecret, monitor, vmm::real_clock());
        REQUIRE(made);
        copier = std::move(*made);
        REQUIRE(copier->start());
        round(GuestState::running);
        REQUIRE(copier->collect());
        round(GuestState::running);
    }

    MessageStream& stream() {
        auto [ours, theirs] = make_memory_transports();
        peers.push_back(std::move(theirs));
        streams.push_back(std::make_unique<MessageStream>(std::move(ours)));
        return *streams.back();
    }
    Round round(GuestState guest) {
        const auto done = copier->round(guest, {}, [] {});
        REQUIRE(done);
        return *done;
    }
    PageTable table() const {
        auto made = PageTable::create(memory.page_limit(), kSecret);
        REQUIRE(made);
        return std::move(*made);
    }
    void guest_writes(std::uint64_t page, std::uint8_t seed) {
        fill_page(memory, page, seed);
        log.vcpu_wrote(page);
    }

    struct Unhindered final : CopyMonitor {
        vmm::Result<void> after_frame(std::size_t, std::size_t) override { return {}; }
    };
    static constexpr Secret kSecret{1};
    vmm::GuestMemory memory = make_memory(kPages);
    ScriptedLog log{kPages};
    Unhindered monitor;
    std::vector<std::unique_ptr<Transport>> peers;
    std::vector<std::unique_ptr<MessageStream>> streams;
    std::unique_ptr<Copier> copier;
};

}  // namespace

TEST_CASE("what a destination that is back does not hold is sent again, though it has not changed",
          "[migration]") {
    Copied copied;
    const auto kept = copied.copier->resume({&copied.stream()}, copied.table());
    REQUIRE(kept);
    CHECK(*kept == 0);
    CHECK(copied.copier->owed_pages() == Copied::kPages);
    CHECK(copied.round(GuestState::running).data_pages == Copied::kPages);
}

TEST_CASE("what is written again after a pause that came to nothing is owed", "[migration]") {
    Copied copied;
    copied.guest_writes(5, 2);
    REQUIRE(copied.copier->collect());
    copied.round(GuestState::paused);
    PageTable held = copied.table();
    Digest sum;
    for (std::uint64_t page = 0; page < Copied::kPages; ++page) {
        held.set(page, copied.copier->table().entry(page), sum);
    }
    copied.guest_writes(5, 3);  // it goes on
    REQUIRE(copied.copier->resume({&copied.stream()}, held));
    CHECK(copied.copier->owed_pages() >= 1);
    CHECK(copied.round(GuestState::running).data_pages == 1);
    CHECK(copied.copier->digest() == copied.copier->table().digest());
}
