// A session of a 16-page guest, cut at every byte in both directions. Whatever the byte, exactly one side
// runs the guest afterwards, and PROTOCOL.md says which.
#include <catch2/catch.hpp>

#include "tests/support/receiver.hpp"

using namespace migration;
using namespace tests;

namespace {

struct Result {
    Outcome outcome{};
    bool source_runs = false;
    bool source_released = false;
    bool destination_runs = false;
    std::uint64_t sent = 0;
    std::uint64_t received = 0;
    RecordStatus source_record{};
};

Result run(Fault fault) {
    Bed bed{16};
    fill_page(bed.source.memory(), 3, 1);
    bed.source.on_save = [&] { bed.source.guest_writes(5, 2); };
    bed.receiver.faults = {fault};
    SourceOptions options;
    options.streams = 0;  // everything on one connection, so that a byte names one instant
    Result result;
    result.outcome = bed.migrate(options);
    result.source_runs = bed.source.running;
    result.source_released = bed.source.released;
    result.destination_runs = bed.receiver.vm.running;
    result.sent = bed.receiver.sent();
    result.received = bed.receiver.received();
    result.source_record = bed.source_records.status(Role::source).value_or(RecordStatus::intent);
    if (result.destination_runs) {
        CHECK(!first_difference(bed.source.memory(), bed.receiver.vm.memory()));
    }
    return result;
}

std::size_t frame_size(const Message& message) {
    return encode_frame(message).size();
}

}  // namespace

TEST_CASE("a session cut at every byte from source to destination has exactly one owner", "[migration]") {
    const Result whole = run({});
    REQUIRE(whole.outcome == Outcome::completed);
    // The session ends with Commit and Acknowledge.
    const std::uint64_t acknowledge = whole.sent - frame_size(Acknowledge{});
    for (std::uint64_t byte = 0; byte < whole.sent; ++byte) {
        INFO("cut before byte " << byte << " of " << whole.sent);
        const Result result = run({Fault::Kind::cut, Fault::Direction::send, byte});
        // Commit counts once it has arrived whole.
        const bool committed = byte >= acknowledge;
        REQUIRE(result.destination_runs == committed);
        REQUIRE(result.source_runs == !committed);
        REQUIRE(result.source_released == committed);
        REQUIRE(result.outcome == (committed ? Outcome::completed : Outcome::failed));
    }
}

TEST_CASE("a session cut at every byte from destination to source has exactly one owner", "[migration]") {
    const Result whole = run({});
    REQUIRE(whole.outcome == Outcome::completed);
    // The last thing the destination says is Running: cut before its end, the source has sent Commit and
    // asks.
    const std::uint64_t running = whole.received - frame_size(Running{});
    for (std::uint64_t byte = 0; byte < whole.received; ++byte) {
        INFO("cut before byte " << byte << " of " << whole.received);
        const Result result = run({Fault::Kind::cut, Fault::Direction::receive, byte});
        if (byte < running) {
            REQUIRE(result.source_runs);
            REQUIRE(!result.destination_runs);
            REQUIRE(result.outcome == Outcome::failed);
        } else {
            // Commit left before the cut was felt; Query finds out whether it was in time.
            REQUIRE(result.source_runs != result.destination_runs);
            REQUIRE(result.source_released == result.destination_runs);
            REQUIRE(result.source_record == RecordStatus::done);
        }
    }
}

TEST_CASE("a bit flipped at every byte of a session never makes two owners or a wrong guest", "[migration]") {
    const Result whole = run({});
    for (std::uint64_t byte = 0; byte < whole.sent; byte += 7) {
        INFO("bit flipped in byte " << byte << " of " << whole.sent);
        const Result result = run({Fault::Kind::corrupt, Fault::Direction::send, byte});
        REQUIRE(result.source_runs != result.destination_runs);
        REQUIRE(result.source_released == result.destination_runs);
    }
}
