// Source and destination, the real ones, over in-memory transports.
#include <catch2/catch.hpp>
#include <mutex>

#include "tests/support/receiver.hpp"

using namespace migration;
using namespace tests;
using namespace std::chrono_literals;

namespace {

void fill(Bed& bed, std::initializer_list<std::uint64_t> pages) {
    for (const std::uint64_t page : pages) {
        fill_page(bed.source.memory(), page, 1);
    }
}

// Who runs the guest. Anything but exactly one is the bug this project exists to prevent.
void check_one_owner(const Bed& bed, bool at_destination) {
    CHECK(bed.receiver.vm.running == at_destination);
    CHECK(bed.source.running == !at_destination);
    CHECK(bed.source.released == at_destination);
    CHECK(bed.disk.owned_by(at_destination ? static_cast<const void*>(&bed.receiver.vm) : &bed.source));
}

SourceOptions on_control() {
    SourceOptions options;
    options.streams = 0;
    return options;
}

}  // namespace

TEST_CASE("a guest moves: memory, state, boot image and records", "[migration]") {
    const auto streams = GENERATE(std::uint16_t{0}, std::uint16_t{1}, std::uint16_t{3});
    const bool verify_full = GENERATE(false, true);
    Bed bed{3 * kChunkPages + 5};
    fill(bed, {0, 1, 7, 4095, 4096, 8191, 12288, 12292});
    SourceOptions options;
    options.streams = streams;
    options.verify_full = verify_full;
    REQUIRE(bed.migrate(options) == Outcome::completed);
    check_one_owner(bed, true);
    CHECK(!first_difference(bed.source.memory(), bed.receiver.vm.memory()));
    CHECK(bed.receiver.vm.snapshot == *bed.source.save());
    CHECK(bed.receiver.vm.boot_image == bed.source.image);
    CHECK(!bed.source.log.armed());
    using enum RecordStatus;
    CHECK(bed.source_records.history(Role::source) == std::vector{intent, committing, done});
    CHECK(bed.receiver.records.history(Role::destination) == std::vector{ready, started, running, done});
    const Report& report = bed.migration_report;
    CHECK(report.digest_verified);
    CHECK(report.rounds.front().data_pages == 8);  // round 0 is sparse
    CHECK(report.outcome == Outcome::completed);
    REQUIRE(report.downtime);
    REQUIRE(report.predicted_downtime);
    const DowntimeParts& parts = report.parts;
    CHECK(*parts.pause + *parts.last_round + *parts.save + *parts.send + *parts.restore + *parts.commit +
              *parts.resume + *parts.other ==
          *report.downtime);
    CHECK(*parts.other >= vmm::Duration::zero());
}

TEST_CASE("a destination that takes long to prepare says that it is there", "[migration]") {
    Bed bed{8};
    bool heard = false;
    bed.receiver.vm.on_prepare = [&] {
        const std::uint64_t before = bed.receiver.received();
        const vmm::TimePoint end = vmm::real_clock().now() + 30s;
        while (!heard && vmm::real_clock().now() < end) {
            std::this_thread::yield();
            heard = bed.receiver.received() > before;
        }
    };
    REQUIRE(bed.migrate() == Outcome::completed);
    CHECK(heard);
    check_one_owner(bed, true);
}

TEST_CASE("disks are flushed once while the guest runs, and then in the pause", "[migration]") {
    Bed bed;
    bool ran = false;
    bed.source.on_pause = [&] { ran = bed.source.flushes == 2 && bed.source.running; };
    REQUIRE(bed.migrate() == Outcome::completed);
    CHECK(ran);
    CHECK(bed.source.flushes == 2);  // the second tells what one costs
}

TEST_CASE("storage that does not answer holds up neither a cancel nor the end of the pause", "[migration]") {
    Bed bed;
    SECTION("while the guest runs") {
        bed.source.on_stall = [&] { bed.engine->cancel(); };
        CHECK(bed.migrate() == Outcome::cancelled);
    }
    SECTION("in the pause") {
        bed.source.on_pause = [&] { bed.source.on_stall = [] {}; };
        CHECK(bed.migrate() == Outcome::failed);
        CHECK(bed.migration_report.reasons.back().what == "the storage does not answer");
    }
    check_one_owner(bed, false);
}

TEST_CASE("a guest paused by its user arrives paused", "[migration]") {
    Bed bed;
    bed.source.user_paused = true;
    REQUIRE(bed.migrate() == Outcome::completed);
    CHECK(bed.receiver.vm.placed);
    CHECK(!bed.receiver.vm.running);
    CHECK(bed.source.released);
}

TEST_CASE("what the guest writes between the rounds arrives", "[migration]") {
    Bed bed;
    fill(bed, {1, 2, 3});
    int rounds = 0;
    bed.source.log.before_clear = [&](vmm::PageRange) {
        // Before the clear, in several rounds: a page sent before, one never sent, one that becomes zero.
        if (++rounds <= 3) {
            bed.source.guest_writes(2, static_cast<std::uint8_t>(10 + rounds));
            bed.source.guest_writes(9, static_cast<std::uint8_t>(20 + rounds));
        }
    };
    bed.source.on_pause = [&] {
        bed.source.guest_writes(3, 99);
        std::fill_n(bed.source.memory().pages({1, 1})->begin(), vmm::kPageSize, std::byte{0});
        bed.source.log.vcpu_wrote(1);
    };
    REQUIRE(bed.migrate(on_control()) == Outcome::completed);
    CHECK(!first_difference(bed.source.memory(), bed.receiver.vm.memory()));
}

TEST_CASE("a write in the instant before the clear is read after it", "[migration]") {
    // Fails when a range is cleared after it was read: that write is then in no round.
    Bed bed;
    fill(bed, {2});
    bool wrote = false;
    bed.source.log.before_clear = [&](vmm::PageRange) {
        if (!std::exchange(wrote, true)) {
            bed.source.guest_writes(2, 77);
        }
    };
    REQUIRE(bed.migrate(on_control()) == Outcome::completed);
    CHECK(!first_difference(bed.source.memory(), bed.receiver.vm.memory()));
}

TEST_CASE("a page first touched in the instant before the clear is not taken for unpopulated",
          "[migration]") {
    // Fails when population is asked before the clear.
    Bed bed;
    fill(bed, {2});
    bool wrote = false;
    bed.source.log.before_clear = [&](vmm::PageRange) {
        if (!std::exchange(wrote, true)) {
            bed.source.guest_writes(11, 5);
        }
    };
    REQUIRE(bed.migrate(on_control()) == Outcome::completed);
    CHECK(!first_difference(bed.source.memory(), bed.receiver.vm.memory()));
}

TEST_CASE("a worker clears no more than the chunk it owns", "[migration]") {
    // Another worker may have read the rest already: what the guest wrote since would be in no round.
    Bed bed{3 * kChunkPages};
    fill(bed, {3, 5000, 9000});
    std::mutex mutex;
    std::vector<vmm::PageRange> cleared;
    bed.source.log.before_clear = [&](vmm::PageRange range) {
        const std::lock_guard lock{mutex};
        cleared.push_back(range);
    };
    SourceOptions options;
    options.streams = GENERATE(std::uint16_t{0}, std::uint16_t{2});
    REQUIRE(bed.migrate(options) == Outcome::completed);
    CHECK(cleared.size() % 3 == 0);
    for (const vmm::PageRange& range : cleared) {
        CHECK(chunk_of(range.first) == chunk_of(range.end() - 1));
    }
}

TEST_CASE("the copy that is hashed is the copy that is sent", "[migration]") {
    // Fails when a running guest's page is hashed and sent by two looks at its memory: the guest writes
    // between the two, and puts the old bytes back before the next look, whose hash then equals the table's.
    Bed bed;
    fill(bed, {4});
    int sends = 0;
    bed.receiver.before_send = [&] {
        if (bed.source.running && bed.source.log.armed()) {
            bed.source.guest_writes(4, 50);
            ++sends;
        }
    };
    const auto put_back = [&] { bed.source.guest_writes(4, 1); };
    bed.source.log.before_clear = [&](vmm::PageRange) { put_back(); };
    bed.source.on_pause = put_back;
    REQUIRE(bed.migrate(on_control()) == Outcome::completed);
    CHECK(sends > 0);
    CHECK(!first_difference(bed.source.memory(), bed.receiver.vm.memory()));
}

TEST_CASE("what saving the state writes is collected again", "[migration]") {
    // Fails without the collect after save.
    Bed bed;
    fill(bed, {2});
    bed.source.on_save = [&] { bed.source.guest_writes(6, 31); };
    REQUIRE(bed.migrate() == Outcome::completed);
    CHECK(!first_difference(bed.source.memory(), bed.receiver.vm.memory()));
}

TEST_CASE("what devices write reaches the union", "[migration]") {
    // Fails without the device-write tracker in the union: no vCPU log sees these.
    Bed bed;
    fill(bed, {2});
    const std::array<std::byte, 3> dma{std::byte{1}, std::byte{2}, std::byte{3}};
    bed.source.on_pause = [&] { CHECK(bed.source.memory().write(vmm::Gpa{7 * vmm::kPageSize + 10}, dma)); };
    REQUIRE(bed.migrate() == Outcome::completed);
    CHECK(!first_difference(bed.source.memory(), bed.receiver.vm.memory()));
}

TEST_CASE("--verify full names a page that no tracker saw", "[migration]") {
    Bed bed;
    fill(bed, {2, 5});
    bed.source.on_pause = [&] { fill_page(bed.source.memory(), 5, 200); };  // behind the log's back
    SourceOptions options;
    SECTION("digest alone cannot see it") {
        CHECK(bed.migrate(options) == Outcome::completed);
    }
    SECTION("full does, and the guest goes on at the source") {
        options.verify_full = true;
        CHECK(bed.migrate(options) == Outcome::failed);
        check_one_owner(bed, false);
        REQUIRE(bed.migration_report.reasons.size() == 1);
        CHECK_THAT(bed.migration_report.reasons[0].what, Catch::Contains("page 5 (0x5000)"));
    }
}

TEST_CASE("a digest mismatch names the page and the source resumes", "[migration]") {
    Bed bed;
    fill(bed, {2, 5});
    // One bit of a page on its way: the frame checksum does not cover payload, the page hash does. The first
    // frame with pages begins after Hello, Manifest, Prepare and the boot image.
    bed.receiver.faults = {{}, {Fault::Kind::corrupt, Fault::Direction::send, 600}};
    SourceOptions options;
    options.streams = 1;
    REQUIRE(bed.migrate(options) == Outcome::failed);
    check_one_owner(bed, false);
    CHECK_THAT(bed.migration_report.reasons.at(0).what, Catch::Contains("page 2 (0x2000)"));
    CHECK(bed.receiver.records.status(Role::destination) == RecordStatus::refused);
    CHECK(!bed.migration_report.digest_verified);
}

TEST_CASE("all reasons of a refusal arrive before any page is sent", "[migration]") {
    Bed bed;
    fill(bed, {2});
    bed.receiver.vm.reasons = {{"memory_limit", "too much", "memory", "less"},
                               {"cpu_limit", "too many", "vCPUs", "fewer"}};
    REQUIRE(bed.migrate() == Outcome::failed);
    CHECK(bed.migration_report.reasons == bed.receiver.vm.reasons);
    CHECK(bed.migration_report.rounds.empty());
    CHECK(!bed.receiver.vm.prepared());
    CHECK(bed.receiver.records.history(Role::destination).empty());
    check_one_owner(bed, false);
}

TEST_CASE("an unreachable destination leaves the guest running", "[migration]") {
    Bed bed;
    bed.receiver.reachable = false;
    REQUIRE(bed.migrate() == Outcome::failed);
    check_one_owner(bed, false);
}

TEST_CASE("a state that the destination rejects leaves the guest at the source", "[migration]") {
    Bed bed;
    fill(bed, {2});
    bed.receiver.vm.restore_error = vmm::Error{vmm::Code::corrupt, "serial-16550[0]: bad"};
    REQUIRE(bed.migrate() == Outcome::failed);
    check_one_owner(bed, false);
    CHECK_THAT(bed.migration_report.reasons.at(0).what, Catch::Contains("serial-16550[0]"));
}

TEST_CASE("a destination that cannot start says failed, and the source resumes", "[migration]") {
    Bed bed;
    bed.receiver.vm.start_error = vmm::Error{vmm::Code::kvm, "KVM_RUN"};
    REQUIRE(bed.migrate() == Outcome::failed);
    check_one_owner(bed, false);
    CHECK(bed.receiver.records.status(Role::destination) == RecordStatus::failed);
}

TEST_CASE("what the pause drained is reported", "[migration]") {
    Bed bed;
    bed.source.drain = {3, std::chrono::milliseconds{2}};
    REQUIRE(bed.migrate() == Outcome::completed);
    REQUIRE(bed.migration_report.drain);
    CHECK(bed.migration_report.drain->requests == 3);
    CHECK(bed.migration_report.drain->time == std::chrono::milliseconds{2});
}

TEST_CASE("devices that do not come to rest end the migration, and say so", "[migration]") {
    Bed bed;
    bed.source.pause_error = vmm::Error{vmm::Code::timeout, "virtio-blk \"data\": 3 requests are left"};
    REQUIRE(bed.migrate() == Outcome::failed);
    const Reason& reason = bed.migration_report.reasons.at(0);
    CHECK(reason.code == "timeout");
    CHECK(reason.what == bed.source.pause_error->text());
    CHECK(reason.where == "phase pause");
    CHECK(!bed.migration_report.drain);
    CHECK(bed.source.running);
    CHECK(!bed.receiver.vm.running);
    check_one_owner(bed, false);
}

TEST_CASE("a guest that ends before the pause ends the migration", "[migration]") {
    Bed bed;
    bed.source.pause_error = vmm::Error{vmm::Code::guest_ended, "the guest has ended"};
    REQUIRE(bed.migrate() == Outcome::failed);
    CHECK(bed.migration_report.reasons.at(0).code == "guest_ended");
    CHECK(!bed.receiver.vm.running);
    CHECK(!bed.source.released);
}

TEST_CASE("cancel is honoured in every phase before Commit, and refused after", "[migration]") {
    using enum SourcePhase;
    const auto phase = GENERATE(connect, negotiate, preflight, prepare, copy, pause, final, commit, done);
    Bed bed;
    fill(bed, {2});
    std::optional<bool> accepted;
    bed.events.on_source = [&](SourcePhase entered) {
        if (entered == phase) {
            accepted = bed.engine->cancel();
        }
    };
    const Outcome outcome = bed.migrate();
    REQUIRE(accepted);
    // Entering Commit is announced before the decision to commit: the last moment at which cancel is
    // honoured.
    const bool in_time = phase != done;
    CHECK(*accepted == in_time);
    CHECK(outcome == (in_time ? Outcome::cancelled : Outcome::completed));
    check_one_owner(bed, !in_time);
}

TEST_CASE("a stalled destination never keeps the guest paused beyond --max-pause", "[migration]") {
    Bed bed;
    fill(bed, {2});
    PhaseGate gate;
    bed.events.on_destination = [&](DestinationPhase phase) {
        if (phase == DestinationPhase::verified) {
            gate.hold();
        }
    };
    SourceOptions options;
    options.limits.max_pause = 50ms;
    bed.engine = std::make_unique<Source>(
        SourceServices{bed.source, bed.receiver, bed.source_records, vmm::real_clock(), bed.events, {}},
        options);
    CHECK(bed.engine->run() == Outcome::failed);
    CHECK(bed.source.running);
    gate.release();
    bed.receiver.join();
    CHECK(!bed.receiver.vm.running);
    CHECK(bed.receiver.records.status(Role::destination) == RecordStatus::refused);
}

TEST_CASE("records that cannot be written stop the move while the guest is safe", "[migration]") {
    Bed bed;
    SECTION("at the source, before anything was sent") {
        bed.source_records.fail_from_now_on();
    }
    SECTION("at the source, at Commit") {
        bed.events.on_source = [&](SourcePhase phase) {
            if (phase == SourcePhase::commit) {
                bed.source_records.fail_from_now_on();
            }
        };
    }
    SECTION("at the destination, in Prepare") {
        bed.receiver.records.fail_from_now_on();
    }
    SECTION("at the destination, at Commit") {
        bed.events.on_destination = [&](DestinationPhase phase) {
            if (phase == DestinationPhase::loaded) {
                bed.receiver.records.fail_from_now_on();
            }
        };
    }
    CHECK(bed.migrate() == Outcome::failed);
    check_one_owner(bed, false);
}

TEST_CASE("a destination that cannot have a disk never says that it starts", "[migration]") {
    Bed bed;
    ScriptedDisk other;
    REQUIRE(other.take(&other));
    bed.receiver.vm.disk = &other;
    CHECK(bed.migrate() == Outcome::failed);
    check_one_owner(bed, false);
    CHECK(bed.receiver.records.history(Role::destination) ==
          std::vector{RecordStatus::ready, RecordStatus::refused});
}

TEST_CASE("while nobody says where the guest is the source has its disks", "[migration]") {
    Bed bed;
    bed.events.on_source = [&](SourcePhase phase) {
        if (phase == SourcePhase::commit) {
            CHECK(bed.disk.owned_by(nullptr));
            bed.receiver.reachable = false;
            bed.receiver.cut();
        }
    };
    SourceOptions options;
    options.query_patience = vmm::Duration::zero();
    CHECK(bed.migrate(options) == Outcome::unknown);
    CHECK(!bed.source.running);
    CHECK(bed.disk.owned_by(&bed.source));
}

// The guest runs there, and the word of it is lost: until Query brings it, both copies are whole.
TEST_CASE("the guest is whole here until the destination has said that it runs there", "[migration]") {
    Bed bed;
    fill(bed, {2});
    bed.events.on_source = [&](SourcePhase phase) {
        if (phase == SourcePhase::commit) {
            bed.receiver.reachable = false;
        }
    };
    PhaseGate gate;
    bed.events.on_destination = [&](DestinationPhase phase) {
        if (phase == DestinationPhase::started) {
            gate.hold();
        }
    };
    SourceOptions options;
    options.query_patience = vmm::Duration::zero();
    bed.engine = std::make_unique<Source>(
        SourceServices{bed.source, bed.receiver, bed.source_records, vmm::real_clock(), bed.events, {}},
        options);
    std::thread cutter{[&] {
        gate.wait_held();
        bed.receiver.cut();
    }};
    REQUIRE(bed.engine->run() == Outcome::unknown);
    cutter.join();
    CHECK(bed.receiver.vm.running);
    CHECK(!bed.source.running);
    CHECK(!bed.source.released);
    CHECK(bed.source_records.status(Role::source) == RecordStatus::committing);
    bed.receiver.reachable = true;
    CHECK(bed.engine->settle() == Outcome::completed);
    check_one_owner(bed, true);
    gate.release();
    bed.receiver.join();
}

TEST_CASE("a person resolves what the destination cannot answer", "[migration]") {
    Bed bed;
    fill(bed, {2});
    // Commit is lost on its way, and nobody answers Query.
    bed.events.on_source = [&](SourcePhase phase) {
        if (phase == SourcePhase::commit) {
            bed.receiver.reachable = false;
        }
    };
    PhaseGate gate;
    bed.events.on_destination = [&](DestinationPhase phase) {
        if (phase == DestinationPhase::started) {
            gate.hold();
        }
    };
    SourceOptions options;
    options.query_patience = vmm::Duration::zero();
    bed.receiver.faults = {{Fault::Kind::none, Fault::Direction::send, 0}};
    bed.engine = std::make_unique<Source>(
        SourceServices{bed.source, bed.receiver, bed.source_records, vmm::real_clock(), bed.events, {}},
        options);
    CHECK(!bed.engine->resolve(Resolution::resume));  // nothing is open yet
    std::thread cutter{[&] {
        gate.wait_held();
        bed.receiver.cut();
    }};
    REQUIRE(bed.engine->run() == Outcome::unknown);
    cutter.join();
    CHECK(!bed.source.running);
    CHECK(!bed.source.released);
    CHECK(!bed.engine->cancel());
    SECTION("resume, while the destination has the disk") {
        CHECK(bed.engine->resolve(Resolution::resume));
        CHECK(bed.engine->settle() == Outcome::failed);
        CHECK(!bed.source.running);
        CHECK(fold(bed.events.take()).reasons.back().code == "not_resumed");
    }
    SECTION("resume, with a disk that the destination has not") {
        bed.source.disk = &bed.source.own_disk;
        CHECK(bed.engine->resolve(Resolution::resume));
        CHECK(bed.engine->settle() == Outcome::failed);
        CHECK(bed.source.running);
    }
    SECTION("discard") {
        CHECK(bed.engine->resolve(Resolution::discard));
        CHECK(bed.engine->settle() == Outcome::completed);
        CHECK(bed.source.released);
    }
    gate.release();
    bed.receiver.join();
}

TEST_CASE("a guest that ends in the copy ends the migration at once", "[migration]") {
    Bed bed;
    fill(bed, {2});
    bed.events.on_source = [&](SourcePhase phase) {
        if (phase == SourcePhase::copy) {
            bed.source.has_ended = true;
        }
    };
    REQUIRE(bed.migrate() == Outcome::failed);
    CHECK(bed.migration_report.reasons.at(0).code == "guest_ended");
    CHECK(!bed.receiver.vm.running);
}
