// A destination that means harm: whatever it says, the guest at the source runs on, and the source ends its
// attempt.
#include <catch2/catch.hpp>

#include "tests/support/receiver.hpp"

using namespace migration;
using namespace tests;

namespace {

// The first connection is answered with these messages, whatever the source says; there is no second.
class HostileConnector final : public Connector {
  public:
    explicit HostileConnector(std::vector<Message> script) : script_(std::move(script)) {}

    vmm::Result<std::unique_ptr<Transport>> connect(const Deadline&) override {
        if (std::exchange(connected_, true)) {
            return vmm::fail(vmm::Code::io, "nobody is there");
        }
        auto [ours, theirs] = make_memory_transports();
        peer_ = std::make_unique<MessageStream>(std::move(theirs));
        for (const Message& message : script_) {
            REQUIRE(peer_->send(message));
        }
        return std::move(ours);
    }
    std::string address() const override { return "hostile"; }

  private:
    std::vector<Message> script_;
    bool connected_ = false;
    std::unique_ptr<MessageStream> peer_;
};

Report run(std::vector<Message> script) {
    ScriptedSource source{16};
    fill_page(source.memory(), 2, 1);
    EventLog events;
    MemoryRecords records;
    HostileConnector connector{std::move(script)};
    Source engine{{source, connector, records, vmm::real_clock(), events, {}}, {}};
    CHECK(engine.run() == Outcome::failed);
    CHECK(source.running);
    CHECK(!source.released);
    return fold(events.take());
}

}  // namespace

TEST_CASE("a digest mismatch out of place does not touch tables that are not there", "[migration]") {
    const std::vector<Message> polite{HelloReply{}, PreflightReply{}, Prepared{}};
    for (std::size_t answers = 0; answers <= polite.size(); ++answers) {
        std::vector<Message> script(polite.begin(), polite.begin() + static_cast<std::ptrdiff_t>(answers));
        script.push_back(DigestMismatch{{}, UINT32_MAX});
        script.push_back(Inventory{0, std::vector<Digest>(100, Digest{1, 2})});
        const Report report = run(std::move(script));
        CHECK(report.reasons.size() == 1);
    }
}

TEST_CASE("costs and clocks of any size are taken without overflow", "[migration]") {
    const Report report =
        run({HelloReply{}, PreflightReply{{}, {}, UINT64_MAX, UINT64_MAX}, Prepared{UINT64_MAX, UINT64_MAX}});
    CHECK(!report.reasons.empty());
    CHECK(peer_duration(UINT64_MAX) == vmm::Duration{std::chrono::hours{1}});
}

TEST_CASE("a queue whose places rise is not heard", "[migration]") {
    ScriptedSource source{16};
    EventLog events;
    MemoryRecords records;
    std::vector<Message> script;
    for (const std::uint16_t place : std::to_array<std::uint16_t>({3, 4, 3, 64, 2, 2, 3, 1})) {
        script.emplace_back(HelloReply{HelloStatus::queued, kProtocolVersion, "wait", place});
    }
    script.emplace_back(HelloReply{HelloStatus::busy, kProtocolVersion, "it is ending"});
    HostileConnector connector{std::move(script)};
    Source engine{{source, connector, records, vmm::real_clock(), events, {}}, {}};
    CHECK(engine.run() == Outcome::failed);
    CHECK(source.running);
    std::vector<int> places;
    for (const Event& event : events.take()) {
        if (const auto* queued = std::get_if<Queued>(&event.what)) {
            places.push_back(queued->place);
        }
    }
    CHECK(places == std::vector<int>{3, 2, 1});
}

TEST_CASE("a preflight does not wait in a queue", "[migration]") {
    ScriptedSource source{16};
    HostileConnector connector{{HelloReply{HelloStatus::queued, kProtocolVersion, "wait", 1}}};
    const auto result = run_preflight(source, connector, vmm::real_clock());
    REQUIRE(!result);
    CHECK(result.error().code() == vmm::Code::protocol);
}

TEST_CASE("a version that was not offered is refused", "[migration]") {
    const Report report = run({HelloReply{HelloStatus::ok, 7, ""}});
    CHECK(report.reasons.at(0).code == "version");
}
