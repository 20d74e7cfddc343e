// Faults on purpose do what they say, and nothing else.
#include <catch2/catch.hpp>

#include "migration/fault.hpp"
#include "tests/support/receiver.hpp"

using namespace migration;
using namespace tests;

namespace {

vmm::Bytes message(std::uint8_t value) {
    return vmm::Bytes(4, std::byte{value});
}

// What arrives when three messages are sent in the phase `copy`, and one before it, under a plan.
struct Sent {
    explicit Sent(const char* text) {
        auto plan = FaultPlan::parse(text, Role::source);
        REQUIRE(plan);
        EventLog events;
        FaultInjector injector{*plan, events, [this](const std::string& what) { struck.push_back(what); }};
        auto [ours, theirs] = make_memory_transports();
        {
            const auto faulty = injector.wrap(std::move(ours));
            injector.on({{}, SourceEntered{SourcePhase::prepare}});
            send(*faulty, 1);
            injector.on({{}, SourceEntered{SourcePhase::copy}});
            for (std::uint8_t value = 2; value <= 4; ++value) {
                send(*faulty, value);
            }
        }
        std::byte next;
        const iovec part{&next, 1};
        while (theirs->receive({&part, 1}, {})) {
            arrived.push_back(next);
        }
    }

    void send(Transport& transport, std::uint8_t value) {
        vmm::Bytes bytes = message(value);
        const vmm::Bytes before = bytes;
        // In two parts, as frames are.
        const std::array parts{part_of(std::span{bytes}.first(1)), part_of(std::span{bytes}.subspan(1))};
        results.push_back(transport.send(parts, {}).has_value());
        CHECK(bytes == before);
    }

    static vmm::Bytes of(std::initializer_list<std::uint8_t> values) {
        vmm::Bytes bytes;
        for (const std::uint8_t value : values) {
            const vmm::Bytes one = message(value);
            bytes.insert(bytes.end(), one.begin(), one.end());
        }
        return bytes;
    }

    std::vector<std::string> struck;
    std::vector<bool> results;
    vmm::Bytes arrived;
};

}  // namespace

TEST_CASE("a fault of one message leaves the others alone", "[migration]") {
    SECTION("delay") {
        const Sent sent{"delay@copy:2=1"};
        CHECK(sent.arrived == Sent::of({1, 2, 3, 4}));
        CHECK(sent.struck == std::vector<std::string>{"delay@copy:2=1"});
    }
    SECTION("duplicate") {
        CHECK(Sent{"duplicate@copy:2"}.arrived == Sent::of({1, 2, 3, 3, 4}));
    }
    SECTION("reorder") {
        CHECK(Sent{"reorder@copy"}.arrived == Sent::of({1, 3, 2, 4}));
    }
    SECTION("corrupt: one bit, counted round") {
        vmm::Bytes expected = Sent::of({1, 2, 3, 4});
        expected[4 + 4 + 1] ^= std::byte{1};
        CHECK(Sent{"corrupt@copy:2=5"}.arrived == expected);
    }
    SECTION("stall: the sender does not learn it") {
        const Sent sent{"stall@copy:2"};
        CHECK(sent.arrived == Sent::of({1, 2}));
        CHECK(sent.results == std::vector{true, true, true, true});
    }
    SECTION("cut") {
        const Sent sent{"cut@copy:3"};
        CHECK(sent.arrived == Sent::of({1, 2, 3}));
        CHECK(sent.results == std::vector{true, true, true, false});
    }
    SECTION("truncate") {
        vmm::Bytes expected = Sent::of({1, 2});
        expected.insert(expected.end(), 3, std::byte{3});
        const Sent sent{"truncate@copy:2=3"};
        CHECK(sent.arrived == expected);
        CHECK(sent.results == std::vector{true, true, false, false});
    }
    SECTION("late: the connection is lost, and the message arrives all the same") {
        const Sent sent{"late@copy:3=1"};
        CHECK(sent.arrived == Sent::of({1, 2, 3, 4}));
        CHECK(sent.results == std::vector{true, true, true, false});
    }
    SECTION("a step that is never reached") {
        const Sent sent{"cut@copy:4"};
        CHECK(sent.arrived == Sent::of({1, 2, 3, 4}));
        CHECK(sent.struck.empty());
    }
}

TEST_CASE("records fail from the write on that the plan names", "[migration]") {
    EventLog events;
    MemoryRecords store;
    FaultInjector injector{*FaultPlan::parse("disk-full@commit", Role::source), events,
                           [](const std::string&) {}};
    const auto records = injector.wrap(store);
    injector.on({{}, SourceEntered{SourcePhase::prepare}});
    auto record = records->create({});
    REQUIRE(record);
    injector.on({{}, SourceEntered{SourcePhase::commit}});
    const auto written = (*record)->update(RecordStatus::committing);
    REQUIRE(!written);
    CHECK(written.error().sys_errno() == ENOSPC);
    injector.on({{}, SourceEntered{SourcePhase::done}});
    CHECK(!(*record)->update(RecordStatus::done));
    CHECK(store.history(Role::source) == std::vector{RecordStatus::intent});
}

TEST_CASE("the wall clock jumps in its phase, and time does not", "[migration]") {
    EventLog events;
    FaultInjector injector{*FaultPlan::parse("clock@preflight=-7200", Role::source), events,
                           [](const std::string&) {}};
    const auto ahead_s = [&] {
        return (injector.clock().realtime_ns() - vmm::real_clock().realtime_ns()) / 1'000'000'000;
    };
    CHECK(ahead_s() == 0);
    injector.on({{}, SourceEntered{SourcePhase::preflight}});
    CHECK(ahead_s() <= -7199);
    CHECK(ahead_s() >= -7201);
    const vmm::TimePoint now = injector.clock().now();
    CHECK(now <= vmm::real_clock().now());
}

TEST_CASE("a fault that is none says what is allowed", "[migration]") {
    const auto error_of = [](const char* text, Role side) {
        const auto plan = FaultPlan::parse(text, side);
        return plan ? "" : plan.error().text();
    };
    CHECK(error_of("cut", Role::source).find("KIND@PHASE") != std::string::npos);
    CHECK(error_of("melt@copy", Role::source).find("truncate, stall") != std::string::npos);
    CHECK(error_of("cut@loaded", Role::source).find("connect, negotiate") != std::string::npos);
    CHECK(error_of("cut@commit", Role::destination).find("greeted, configured") != std::string::npos);
    CHECK(!error_of("cut@copy:0", Role::source).empty());
    CHECK(!error_of("cut@copy:1x", Role::source).empty());
    CHECK(!error_of("delay@copy=-5", Role::source).empty());
    for (const char* text :
         {"kill@final:0=0", "clock@preflight:0=-5", "late@commit:1=1500", "read-only@done:1=0"}) {
        const auto plan = FaultPlan::parse(text, Role::source);
        REQUIRE(plan);
        CHECK(plan->text() == text);
    }
}
