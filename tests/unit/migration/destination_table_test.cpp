// The destination's state table, cell by cell: every (state, message) pair, and Query in every state.
#include <catch2/catch.hpp>

#include "tests/support/receiver.hpp"

using namespace migration;
using namespace tests;

namespace {

constexpr std::uint64_t kTablePages = 16;

// A Destination brought to a state by the messages that lead there.
struct TableRig {
    ScriptedDestination vm;
    MemoryRecords records;
    EventLog events;
    Hello hello;
    std::unique_ptr<Destination> destination;

    explicit TableRig(DestinationPhase phase) {
        hello.versions = {kProtocolVersion};
        hello.secret[0] = 1;
        destination = std::make_unique<Destination>(
            hello, "peer", DestinationServices{vm, records, vmm::real_clock(), events, {}});
        using enum DestinationPhase;
        if (phase == refused) {
            destination->on(Cancel{"no"});
        } else if (phase == failed) {
            vm.start_error = vmm::Error{vmm::Code::kvm, "KVM_RUN"};
            advance(loaded);
            destination->on(Commit{1});
        } else if (phase == parked) {
            advance(receiving);
            REQUIRE(destination->park());
        } else {
            advance(phase);
        }
        REQUIRE(destination->phase() == phase);
    }

    void advance(DestinationPhase phase) {
        using enum DestinationPhase;
        const auto reached = [&](DestinationPhase wanted) {
            return static_cast<int>(destination->phase()) >= static_cast<int>(wanted);
        };
        if (phase >= configured && !reached(configured)) {
            Manifest manifest;
            manifest.name = "guest";
            manifest.ram_bytes = kTablePages * vmm::kPageSize;
            destination->on(manifest);
        }
        if (phase >= receiving && !reached(receiving)) {
            // XXH3-64 of nothing: no boot image.
            destination->on(Prepare{0, false, 0x2d06800538d394c2, 1000});
        }
        if (phase >= verified && !reached(verified)) {
            REQUIRE(destination->round_end(0, {0, true}));
            destination->on(Finish{});
        }
        if (phase >= loaded && !reached(loaded)) {
            destination->on(MachineState{vmm::Bytes(8), 0});
        }
        if (phase >= started && !reached(started)) {
            destination->on(Commit{1});
        }
    }
};

template <std::size_t I = 0>
std::vector<Message> one_of_each() {
    std::vector<Message> all;
    if constexpr (I < std::variant_size_v<Message>) {
        all.push_back(Message{std::in_place_index<I>});
        for (Message& rest : one_of_each<I + 1>()) {
            all.push_back(std::move(rest));
        }
    }
    return all;
}

bool accepted(DestinationPhase phase, const Message& message) {
    using enum DestinationPhase;
    switch (phase) {
        case greeted:
            return std::holds_alternative<Manifest>(message);
        case configured:
            return std::holds_alternative<Probe>(message) || std::holds_alternative<Prepare>(message);
        case receiving:
            return std::holds_alternative<KeepAlive>(message) || std::holds_alternative<Finish>(message);
        case verified:
            return std::holds_alternative<MachineState>(message);
        case loaded:
            return std::holds_alternative<Commit>(message);
        case parked:
            return std::holds_alternative<Resume>(message);
        default:
            return false;
    }
}

}  // namespace

TEST_CASE("every message in every state does what the table says", "[migration]") {
    using enum DestinationPhase;
    for (const DestinationPhase phase :
         {greeted, configured, receiving, verified, loaded, started, refused, failed, parked}) {
        for (Message message : one_of_each()) {
            TableRig rig{phase};
            INFO(name_of(phase) << " <- " << message_name(message));
            if (auto* manifest = std::get_if<Manifest>(&message)) {
                manifest->ram_bytes = kTablePages * vmm::kPageSize;
            } else if (auto* prepare = std::get_if<Prepare>(&message)) {
                prepare->boot_image_hash = 0x2d06800538d394c2;
            } else if (auto* commit = std::get_if<Commit>(&message)) {
                commit->epoch = 1;
            } else if (phase == receiving && std::holds_alternative<Finish>(message)) {
                REQUIRE(rig.destination->round_end(0, {0, true}));
            }
            const auto before = rig.records.history(Role::destination);
            const Step step = rig.destination->on(message);
            const DestinationPhase after = rig.destination->phase();
            if (accepted(phase, message)) {
                CHECK(!step.close);
                const bool stays =
                    std::holds_alternative<KeepAlive>(message) || std::holds_alternative<Probe>(message);
                CHECK(after == (phase == parked ? receiving
                                                : static_cast<DestinationPhase>(static_cast<int>(phase) +
                                                                                (stays ? 0 : 1))));
                continue;
            }
            CHECK(step.close);
            if (phase == started) {
                // The guest runs, whatever the peer says.
                CHECK(after == started);
                CHECK(rig.vm.running);
                CHECK(step.replies.empty());
                continue;
            }
            CHECK(!rig.vm.running);
            CHECK(after == (phase == failed ? failed : refused));
            const bool cancelled =
                std::holds_alternative<Cancel>(message) && phase != refused && phase != failed;
            REQUIRE(step.replies.size() == (cancelled ? 0 : 1));
            if (!cancelled) {
                CHECK(std::holds_alternative<Failed>(step.replies.front()));
            }
            if (!before.empty() && before.back() == RecordStatus::ready) {
                CHECK(rig.records.status(Role::destination) == RecordStatus::refused);
            }
        }
    }
}

TEST_CASE("Query in every state: refused only with a record that says so, and for ever", "[migration]") {
    using enum DestinationPhase;
    for (const DestinationPhase phase :
         {greeted, configured, receiving, verified, loaded, started, refused, failed, parked}) {
        TableRig rig{phase};
        INFO(name_of(phase));
        const bool has_record = rig.records.status(Role::destination).has_value();
        const QueryOutcome outcome = rig.destination->query();
        if (phase == started) {
            CHECK(outcome == QueryOutcome::running);
            CHECK(rig.vm.running);
            continue;
        }
        if (phase == failed) {
            CHECK(outcome == QueryOutcome::failed);
            continue;
        }
        CHECK(outcome == QueryOutcome::refused);
        if (has_record) {
            CHECK(rig.records.status(Role::destination) == RecordStatus::refused);
        }
        // A late Commit, and a second Query.
        rig.destination->on(Commit{1});
        CHECK(!rig.vm.running);
        CHECK(rig.destination->query() == QueryOutcome::refused);
    }
}

TEST_CASE("Query is not answered `refused` when the record cannot be written", "[migration]") {
    TableRig rig{DestinationPhase::loaded};
    rig.records.fail_from_now_on();
    CHECK(rig.destination->query() == QueryOutcome::unknown);
    // And yet this process will not start it.
    rig.destination->on(Commit{1});
    CHECK(!rig.vm.running);
}

TEST_CASE("Commit of another epoch does not start the guest", "[migration]") {
    const auto epoch = GENERATE(std::uint64_t{0}, std::uint64_t{2}, UINT64_MAX);
    TableRig rig{DestinationPhase::loaded};
    const Step step = rig.destination->on(Commit{epoch});
    CHECK(step.close);
    CHECK(!rig.vm.running);
    CHECK(rig.records.status(Role::destination) == RecordStatus::refused);
}

TEST_CASE("streams: pages only between Prepared and their last end mark", "[migration]") {
    TableRig rig{DestinationPhase::configured};
    CHECK(rig.destination->receiver(0) == nullptr);
    rig.advance(DestinationPhase::receiving);
    CHECK(rig.destination->receiver(0) != nullptr);
    CHECK(rig.destination->receiver(1) == nullptr);
    CHECK(!rig.destination->round_end(1, {0, true}));
    CHECK(!rig.destination->round_end(0, {1, false}));  // rounds come in order
    CHECK(rig.destination->round_end(0, {0, false}));
    CHECK(!rig.destination->quiet());
    CHECK(rig.destination->round_end(0, {1, true}));
    CHECK(rig.destination->quiet());
    CHECK(rig.destination->receiver(0) == nullptr);
    CHECK(!rig.destination->round_end(0, {2, true}));
}

TEST_CASE("Finish before the last end mark is refused", "[migration]") {
    TableRig rig{DestinationPhase::receiving};
    CHECK(rig.destination->on(Finish{}).close);
    CHECK(rig.destination->phase() == DestinationPhase::refused);
}

TEST_CASE("a boot image is taken in order, whole and undamaged, or not at all", "[migration]") {
    const vmm::Bytes image(10, std::byte{3});
    const auto begin = [](TableRig& rig, std::uint64_t hash) {
        Manifest manifest;
        manifest.ram_bytes = kTablePages * vmm::kPageSize;
        manifest.boot_image_bytes = 10;
        rig.destination->on(manifest);
        rig.destination->on(Prepare{0, false, hash});
    };
    SECTION("wrong hash") {
        TableRig rig{DestinationPhase::greeted};
        begin(rig, 1);
        CHECK(rig.destination->on(BootImagePart{0}, image).close);
    }
    SECTION("too long") {
        TableRig rig{DestinationPhase::greeted};
        begin(rig, 1);
        CHECK(rig.destination->on(BootImagePart{0}, vmm::Bytes(11)).close);
    }
    SECTION("out of order") {
        TableRig rig{DestinationPhase::greeted};
        begin(rig, 1);
        CHECK(rig.destination->on(BootImagePart{5}, vmm::Bytes(5)).close);
    }
    SECTION("before Prepare") {
        TableRig rig{DestinationPhase::configured};
        CHECK(rig.destination->on(BootImagePart{0}, vmm::Bytes(1)).close);
    }
}

TEST_CASE("a connection that ends before Commit leaves a refused record, after it a running guest",
          "[migration]") {
    const vmm::Error closed{vmm::Code::closed, "closed"};
    TableRig loaded{DestinationPhase::loaded};
    loaded.destination->disconnected(closed);
    CHECK(loaded.destination->phase() == DestinationPhase::refused);
    CHECK(loaded.records.status(Role::destination) == RecordStatus::refused);
    TableRig started{DestinationPhase::started};
    started.destination->disconnected(closed);
    CHECK(started.destination->phase() == DestinationPhase::started);
    CHECK(started.records.status(Role::destination) == RecordStatus::running);
}
