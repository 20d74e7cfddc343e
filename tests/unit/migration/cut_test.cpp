// A session of a 16-page guest, cut or stalled at every byte in both directions. Whatever the byte, exactly
// one side runs the guest afterwards, PROTOCOL.md says which, and the records say the same.
#include <algorithm>
#include <catch2/catch.hpp>

#include "tests/support/receiver.hpp"

using namespace migration;
using namespace tests;

namespace {

using History = std::vector<RecordStatus>;

struct CutResult {
    Outcome outcome{};
    bool source_runs = false;
    bool source_released = false;
    bool destination_runs = false;
    History source_record;
    History destination_record;
    // Through the connection with the fault.
    std::uint64_t sent = 0;
    std::uint64_t received = 0;
    // Through control, when the boot image begins and when the destination has answered it.
    std::uint64_t received_before_prepare = 0;
    std::uint64_t sent_before_copy = 0;
};

constexpr std::size_t kControlConnection = 0;
constexpr std::size_t kDataConnection = 1;

// The fault is on that connection. Without a data connection everything is on control, so that a byte names
// one instant.
CutResult run(Fault fault, std::size_t connection = kControlConnection) {
    Bed bed{16};
    fill_page(bed.source.memory(), 3, 1);
    bed.source.on_save = [&] { bed.source.guest_writes(5, 2); };
    bed.receiver.faults.resize(connection + 1);
    bed.receiver.faults[connection] = fault;
    SourceOptions options;
    options.streams = connection == kControlConnection ? 0 : 1;
    CutResult result;
    bed.events.on_source = [&](SourcePhase phase) {
        if (phase == SourcePhase::prepare) {
            result.received_before_prepare = bed.receiver.received();
        } else if (phase == SourcePhase::copy) {
            result.sent_before_copy = bed.receiver.sent();
        }
    };
    result.outcome = bed.migrate(options);
    result.source_runs = bed.source.running;
    result.source_released = bed.source.released;
    result.destination_runs = bed.receiver.vm.running;
    result.sent = bed.receiver.sent(connection);
    result.received = bed.receiver.received(connection);
    result.source_record = bed.source_records.history(Role::source);
    result.destination_record = bed.receiver.records.history(Role::destination);
    REQUIRE(bed.disk.owned_by(result.source_runs ? static_cast<const void*>(&bed.source) : &bed.receiver.vm));
    if (result.destination_runs) {
        CHECK(!first_difference(bed.source.memory(), bed.receiver.vm.memory()));
    }
    return result;
}

CutResult run_whole(std::size_t connection = kControlConnection) {
    using enum RecordStatus;
    CutResult whole = run({}, connection);
    REQUIRE(whole.outcome == Outcome::completed);
    REQUIRE(whole.source_record == History{intent, committing, done});
    REQUIRE(whole.destination_record == History{ready, started, running, done});
    return whole;
}

// A Query writes `refused` again.
bool is_refused(const History& record) {
    using enum RecordStatus;
    return record.size() > 1 && record.front() == ready &&
           std::all_of(record.begin() + 1, record.end(),
                       [](RecordStatus status) { return status == refused; });
}

// The source never sent Commit, or the destination never had it whole.
void require_source_owns(const CutResult& result, bool destination_was_prepared) {
    using enum RecordStatus;
    REQUIRE(result.source_runs);
    REQUIRE(!result.source_released);
    REQUIRE(!result.destination_runs);
    REQUIRE(result.outcome == Outcome::failed);
    REQUIRE((result.source_record.empty() || result.source_record.back() == done));
    REQUIRE((destination_was_prepared ? is_refused(result.destination_record)
                                      : result.destination_record.empty()));
}

// Acknowledge never arrived: the destination cannot know that the source knows.
void require_destination_owns(const CutResult& result) {
    using enum RecordStatus;
    REQUIRE(!result.source_runs);
    REQUIRE(result.source_released);
    REQUIRE(result.destination_runs);
    REQUIRE(result.outcome == Outcome::completed);
    REQUIRE(result.source_record == History{intent, committing, done});
    REQUIRE(result.destination_record == History{ready, started, running});
}

std::size_t frame_size(const Message& message) {
    return encode_frame(message).size();
}

}  // namespace

// Stalls, like the data connection below, are sampled: most bytes are those of two pages.
TEST_CASE("a session broken at every byte from source to destination has exactly one owner", "[migration]") {
    const auto kind = GENERATE(Fault::Kind::cut, Fault::Kind::stall);
    const CutResult whole = run_whole();
    // The session ends with Commit and Acknowledge.
    const std::uint64_t acknowledge = whole.sent - frame_size(Acknowledge{});
    const std::uint64_t step = kind == Fault::Kind::cut ? 1 : 11;
    for (std::uint64_t byte = 0; byte < whole.sent; byte += step) {
        INFO("broken before byte " << byte << " of " << whole.sent);
        const CutResult result = run({kind, Fault::Direction::send, byte});
        // Commit counts once it has arrived whole.
        if (byte < acknowledge) {
            require_source_owns(result, byte >= whole.sent_before_copy);
        } else {
            require_destination_owns(result);
        }
    }
}

TEST_CASE("a session broken at every byte from destination to source has exactly one owner", "[migration]") {
    const auto kind = GENERATE(Fault::Kind::cut, Fault::Kind::stall);
    const CutResult whole = run_whole();
    // The last thing the destination says is Running: broken before its end, the source has sent Commit and
    // asks.
    const std::uint64_t running = whole.received - frame_size(Running{});
    for (std::uint64_t byte = 0; byte < whole.received; ++byte) {
        INFO("broken before byte " << byte << " of " << whole.received);
        const CutResult result = run({kind, Fault::Direction::receive, byte});
        // Commit left before the fault was felt; Query finds out whether it was in time.
        if (byte >= running && result.destination_runs) {
            require_destination_owns(result);
        } else {
            require_source_owns(result, byte >= whole.received_before_prepare);
        }
    }
}

TEST_CASE("a data connection broken anywhere leaves the guest with the source", "[migration]") {
    const auto kind = GENERATE(Fault::Kind::cut, Fault::Kind::stall);
    const auto direction = GENERATE(Fault::Direction::send, Fault::Direction::receive);
    const CutResult whole = run_whole(kDataConnection);
    const std::uint64_t size = direction == Fault::Direction::send ? whole.sent : whole.received;
    const std::uint64_t step = direction == Fault::Direction::send ? 11 : 1;
    for (std::uint64_t byte = 0; byte < size; byte += step) {
        INFO("broken before byte " << byte << " of " << size);
        require_source_owns(run({kind, direction, byte}, kDataConnection), true);
    }
}

TEST_CASE("a bit flipped at every byte of a session never makes two owners or a wrong guest", "[migration]") {
    using enum RecordStatus;
    const CutResult whole = run_whole();
    for (std::uint64_t byte = 0; byte < whole.sent; byte += 7) {
        INFO("bit flipped in byte " << byte << " of " << whole.sent);
        const CutResult result = run({Fault::Kind::corrupt, Fault::Direction::send, byte});
        REQUIRE(result.source_runs != result.destination_runs);
        REQUIRE(result.source_released == result.destination_runs);
        const History& record = result.destination_record;
        if (result.destination_runs) {
            REQUIRE((record == History{ready, started, running} ||
                     record == History{ready, started, running, done}));
        } else {
            REQUIRE((record.empty() || is_refused(record)));
        }
    }
}
