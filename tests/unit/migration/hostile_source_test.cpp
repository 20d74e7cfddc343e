// A source that means harm: what it can make a receiver do before it has brought a guest. The limits are
// those of PROTOCOL.md, section 1.
#include <catch2/catch.hpp>
#include <set>

#include "tests/support/receiver.hpp"
#include "tests/support/script_transport.hpp"
#include "vmm/guest/address.hpp"

using namespace migration;
using namespace tests;

namespace {

constexpr std::uint64_t kGuestPages = 16;
constexpr std::uint64_t kNoImageHash = 0x2d06800538d394c2;  // XXH3-64 of nothing

struct SessionRig {
    ScriptedDestination vm;
    MemoryRecords records;
    EventLog events;
    Hello hello{{kProtocolVersion}, Purpose::control, {1}, {2}, 0};
    ScriptTransport::Asked asked;
    std::string failure;

    // A session whose source says these bytes, to its end; true: a guest has come.
    bool run(const vmm::Bytes& script) {
        DestinationSession session{hello,
                                   std::make_unique<ScriptTransport>(script, &asked),
                                   {vm, records, vmm::real_clock(), events, {}}};
        const bool owned = session.run();
        failure = session.destination().failure();
        return owned;
    }
};

void append(vmm::Bytes& script, const vmm::Bytes& frame) {
    script.insert(script.end(), frame.begin(), frame.end());
}

Manifest manifest_of(std::uint64_t ram_bytes) {
    Manifest manifest;
    manifest.name = "guest";
    manifest.ram_bytes = ram_bytes;
    return manifest;
}

// The header of a message, whose body never comes.
vmm::Bytes announced(const Message& message) {
    vmm::Bytes frame = encode_frame(message);
    frame.resize(kFrameHeaderBytes);
    return frame;
}

}  // namespace

TEST_CASE("memory for what a peer announces is not there before its bytes are", "[migration]") {
    SessionRig rig;
    const std::string text(kMaxTextBytes, 'x');
    const vmm::Bytes header =
        announced(PreflightReply{std::vector<Reason>(250, {"code", text, text, text}), {}, 0, 0});
    CHECK_FALSE(rig.run(header));
    CHECK(rig.asked.largest_part <= std::size_t{256} << 10);
    CHECK_FALSE(rig.vm.prepared());
}

TEST_CASE("before the manifest is accepted a message above 1 MiB is refused by its header", "[migration]") {
    SessionRig rig;
    CHECK_FALSE(rig.run(announced(MachineState{vmm::Bytes((std::size_t{1} << 20) + 1), 0})));
    CHECK(rig.failure.find("more than is accepted now") != std::string::npos);
    CHECK(rig.asked.largest_part <= kFrameHeaderBytes);
}

TEST_CASE("a machine's state is refused by its header before it is due", "[migration]") {
    SessionRig rig;
    vmm::Bytes script = encode_frame(manifest_of(kGuestPages * vmm::kPageSize));
    append(script, encode_frame(Prepare{0, false, kNoImageHash}));
    append(script, announced(MachineState{vmm::Bytes(std::size_t{8} << 20), 0}));
    CHECK_FALSE(rig.run(script));
    CHECK(rig.failure.find("more than is accepted now") != std::string::npos);
}

TEST_CASE("what a peer owes before it has memory here is due at one moment, however it trickles",
          "[migration]") {
    SessionRig rig;
    const vmm::TimePoint begin = vmm::real_clock().now();
    vmm::Bytes script = encode_frame(manifest_of(kGuestPages * vmm::kPageSize));
    for (unsigned i = 0; i < 3; ++i) {
        append(script, encode_frame(Probe{}));
    }
    CHECK_FALSE(rig.run(script));
    std::set<vmm::TimePoint> moments;
    for (const Deadline& deadline : rig.asked.deadlines) {
        REQUIRE(deadline.at.has_value());
        moments.insert(*deadline.at);
    }
    CHECK(moments.size() == 2);  // for the manifest, and for the boot image
    CHECK(*moments.begin() - begin <= std::chrono::seconds{10} + (vmm::real_clock().now() - begin));
}

TEST_CASE("a guest that preflight refused gets no memory, whatever follows", "[migration]") {
    SessionRig rig;
    rig.vm.reasons = {{"memory_limit", "too large", "memory", ""}};
    vmm::Bytes script = encode_frame(manifest_of(std::uint64_t{1} << 45));
    append(script, encode_frame(Prepare{0, false, kNoImageHash}));
    append(script, encode_frame(RoundEnd{0, true}));
    append(script, encode_frame(Commit{1}));
    CHECK_FALSE(rig.run(script));
    CHECK_FALSE(rig.vm.prepared());
    CHECK(rig.records.history(Role::destination).empty());
}

TEST_CASE("a boot image grows by what has come, to the size that preflight accepted", "[migration]") {
    SessionRig rig;
    Manifest manifest = manifest_of(kGuestPages * vmm::kPageSize);
    manifest.boot_image_bytes = 10;
    vmm::Bytes script = encode_frame(manifest);
    append(script, encode_frame(Prepare{0, false, 1}));
    append(script, encode_frame(BootImagePart{0}, BootImagePart::kMaxPayload));
    script.resize(script.size() + BootImagePart::kMaxPayload);
    CHECK_FALSE(rig.run(script));
    CHECK(rig.failure.find("out of place") != std::string::npos);
    CHECK(rig.asked.largest_part <= BootImagePart::kMaxPayload);
    CHECK_FALSE(rig.vm.prepared());
}

TEST_CASE("Finish before the last pages is refused at once where nothing else can bring them",
          "[migration]") {
    SessionRig rig;
    vmm::Bytes script = encode_frame(manifest_of(kGuestPages * vmm::kPageSize));
    append(script, encode_frame(Prepare{0, false, kNoImageHash}));
    append(script, encode_frame(RoundEnd{0, false}));
    append(script, encode_frame(Finish{}));
    CHECK_FALSE(rig.run(script));
    CHECK(rig.failure == "Finish came before the last pages");
}
