#include "migration/frame.hpp"

#include <xxhash.h>

#include <catch2/catch.hpp>
#include <random>

#include "tests/golden/golden.hpp"
#include "vmm/state/decode.hpp"
#include "vmm/state/describe.hpp"
#include "vmm/state/encode.hpp"

using namespace migration;

namespace {

// One of each, with contents.
std::vector<Message> samples() {
    Manifest manifest;
    manifest.name = "guest";
    manifest.uuid[3] = 4;
    manifest.epoch = 2;
    manifest.ram_bytes = 1 << 20;
    manifest.cpu.vcpus = 2;
    manifest.cpu.cpuid.entries = {{1, 0, 0, 0x12345, 2, 3, 4}};
    manifest.cpu.msrs = {0x10, 0xc0000080};
    manifest.devices = {{"serial-16550", 0, 1}};
    return {Hello{{1}, Purpose::data, {1, 2}, {3, 4}, 5},
            HelloReply{HelloStatus::queued, 1, "place 2 of 4 in the queue", 2},
            manifest,
            PreflightReply{{{"a", "b", "c", "d"}}, {}, 77, 8},
            Prepare{2, true, 99, 35000},
            BootImagePart{4096},
            Prepared{1, 2},
            Pages{3, {{ExtentKind::data, 10, 2}, {ExtentKind::zero, 100, 50}}},
            RoundEnd{3, true},
            KeepAlive{},
            Finish{{1, 2}},
            MachineState{vmm::Bytes(30, std::byte{9}), 5},
            Ready{{1, 2}, 3, 4},
            DigestMismatch{{1, 2}, 1},
            Inventory{4096, {{1, 2}, {0, 0}}},
            Failed{"why"},
            Cancel{"because"},
            Commit{6},
            Running{7},
            Placed{},
            Acknowledge{},
            QueryAnswer{QueryOutcome::lost},
            Probe{true},
            Probed{},
            RoundDone{8},
            Resume{9},
            Held{10}};
}

vmm::Result<Message> decode_frame(std::span<const std::byte> frame) {
    if (frame.size() < kFrameHeaderBytes) {
        return vmm::fail(vmm::Code::corrupt, "short");
    }
    const std::span<const std::byte, kFrameHeaderBytes> raw = frame.first<kFrameHeaderBytes>();
    const FrameHeader header = TRY(decode_header(raw, std::size_t{1} << 30));
    if (frame.size() != kFrameHeaderBytes + header.body_bytes) {
        return vmm::fail(vmm::Code::corrupt, "length");
    }
    return decode_body(header, frame.subspan(kFrameHeaderBytes));
}

}  // namespace

TEST_CASE("every message survives its frame", "[migration]") {
    REQUIRE(samples().size() == std::variant_size_v<Message>);
    for (const Message& message : samples()) {
        INFO(message_name(message));
        const vmm::Bytes frame = encode_frame(message);
        const auto back = decode_frame(frame);
        REQUIRE(back);
        CHECK(back->index() == message.index());
        CHECK(encode_frame(*back) == frame);
    }
}

TEST_CASE("every strict prefix and every flipped bit of a frame is refused", "[migration]") {
    for (const Message& message : samples()) {
        INFO(message_name(message));
        const vmm::Bytes frame = encode_frame(message);
        for (std::size_t size = 0; size < frame.size(); ++size) {
            REQUIRE(!decode_frame(std::span{frame}.first(size)));
        }
        for (std::size_t bit = 0; bit < frame.size() * 8; ++bit) {
            vmm::Bytes bad = frame;
            bad[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
            REQUIRE(!decode_frame(bad));
        }
    }
}

TEST_CASE("lengths are refused before anything is read on their word", "[migration]") {
    const vmm::Bytes good = encode_frame(Commit{1});
    const auto with = [&](std::size_t at, std::uint32_t value) {
        vmm::Bytes bad = good;
        vmm::store_le(bad.data() + at, value);
        // With the right checksum: this is about a peer that lies, not about damage.
        vmm::store_le(bad.data() + 24, static_cast<std::uint64_t>(XXH3_64bits(bad.data(), 24)));
        return decode_header(std::span<const std::byte>{bad}.first<kFrameHeaderBytes>(),
                             std::size_t{1} << 30);
    };
    CHECK(!with(8, Commit::max_body + 1));
    CHECK(!with(8, UINT32_MAX));
    CHECK(!with(12, 1));  // Commit has no payload
    CHECK(!with(12, UINT32_MAX));
    CHECK(!with(4, 999));
    CHECK(!with(0, 1));
    // The limit of the moment, below that of the type.
    const vmm::Bytes state = encode_frame(MachineState{vmm::Bytes(5000), 0});
    CHECK(decode_header(std::span<const std::byte>{state}.first<kFrameHeaderBytes>(), 8192));
    CHECK(!decode_header(std::span<const std::byte>{state}.first<kFrameHeaderBytes>(), 4096));
}

TEST_CASE("a mutated body that is accepted encodes to the same bytes", "[migration]") {
    std::mt19937_64 random{1};
    for (const Message& message : samples()) {
        std::visit(
            [&](const auto& m) {
                using T = std::decay_t<decltype(m)>;
                const vmm::Bytes good = vmm::encode(m);
                for (int i = 0; i < 2000 && !good.empty(); ++i) {
                    vmm::Bytes bad = good;
                    for (std::uint64_t flips = 1 + random() % 3; flips > 0; --flips) {
                        bad[random() % bad.size()] = static_cast<std::byte>(random());
                    }
                    if (const auto accepted = vmm::decode<T>(bad, kProtocolVersion)) {
                        REQUIRE(vmm::encode(*accepted) == bad);
                    }
                }
            },
            message);
    }
}

TEST_CASE("the wire has not changed without a new protocol version", "[migration]") {
    std::string schema = fmt::format("protocol version {}\n", kProtocolVersion);
    vmm::Bytes stream;
    for (const Message& message : samples()) {
        std::visit(
            [&](const auto& m) {
                using T = std::decay_t<decltype(m)>;
                vmm::Describer describer;
                T::visit(m, describer);
                schema += fmt::format("{} {} (at most {} bytes)\n{}", static_cast<unsigned>(T::type),
                                      message_name(message), T::max_body, describer.take());
            },
            message);
        const vmm::Bytes frame = encode_frame(message);
        stream.insert(stream.end(), frame.begin(), frame.end());
    }
    tests::check_golden("schema/migration-messages-v3.txt", schema);
    tests::check_golden("stream/migration-messages-v3.bin", stream);
}
