// A whole snapshot: framing, versions, and which sections must be there.
#include "vmm/state/snapshot.hpp"

#include <xxhash.h>

#include <catch2/catch.hpp>
#include <random>

#include "tests/golden/golden.hpp"
#include "tests/unit/base/death.hpp"
#include "tests/unit/state/sample.hpp"
#include "vmm/state/describe.hpp"

using tests::sample;
using tests::Sample;
using tests::SampleOf;
using tests::SampleV1;
using vmm::Bytes;
using vmm::Code;
using vmm::SnapshotReader;
using vmm::SnapshotWriter;
using Unknown = SnapshotWriter::Unknown;

namespace {

// Of a stream whose first section is "sample": the header has 16 bytes, the name 1 + 6.
constexpr std::size_t kFormat = 8;
constexpr std::size_t kCount = 12;
constexpr std::size_t kNameLength = 16;
constexpr std::size_t kName = 17;
constexpr std::size_t kInstance = 23;
constexpr std::size_t kVersion = 27;
constexpr std::size_t kFlags = 29;
constexpr std::size_t kLength = 31;
constexpr std::size_t kBody = 43;

// The state that a worked example can show in a few lines.
struct Tiny {
    static constexpr vmm::StateId id{"tiny", 1, 1};
    bool on = true;
    std::uint16_t port = 0x3f8;
    std::string label = "com1";

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("on", self.on);
        v.field("port", self.port);
        v.text("label", self.label, 16);
    }
};

// Reads version 3 only.
struct Strict {
    static constexpr vmm::StateId id{"sample", 3, 3};
    template <typename Self, typename V>
    static void visit(Self&, V&) {}
};

template <typename T>
Bytes stream_of(const T& state, Unknown unknown = Unknown::must_fail) {
    SnapshotWriter writer;
    writer.put(0, state, unknown);
    return writer.finish();
}

SnapshotReader parse(const Bytes& bytes) {
    auto reader = SnapshotReader::parse(bytes);
    REQUIRE(reader);
    return std::move(*reader);
}

// The error of parsing the sample's stream after `change`.
template <typename F>
vmm::Error parse_error(F&& change) {
    Bytes bytes = stream_of(sample());
    change(bytes);
    const auto reader = SnapshotReader::parse(bytes);
    REQUIRE(!reader);
    return reader.error();
}

}  // namespace

TEST_CASE("a stream recorded by each version still loads", "[state]") {
    for (const auto& [name, speed] :
         {std::pair{"stream/sample-v1.bin", 100u}, {"stream/sample-v2.bin", 250u}}) {
        CAPTURE(name);
        SnapshotReader reader = parse(tests::golden_bytes(name));
        const auto state = reader.take<Sample>(0);
        REQUIRE(state);
        CHECK(reader.finish());
        Sample expected = sample();
        expected.speed = speed;
        CHECK(vmm::first_difference(*state, expected) == "");
    }
}

TEST_CASE("the bytes written for a version cannot change unnoticed", "[state]") {
    tests::check_golden("stream/sample-v1.bin", stream_of(sample<SampleV1>()));
    tests::check_golden("stream/sample-v2.bin", stream_of(sample()));
}

TEST_CASE("the worked example of STATE.md is what the code writes", "[state]") {
    // The page shows `offset: hex bytes  | meaning` in its one block that starts with `0000:`.
    const std::string page = tests::source_file("vmm/state/STATE.md");
    Bytes example;
    std::istringstream lines{page};
    for (std::string line; std::getline(lines, line);) {
        const std::size_t colon = line.find(": ");
        const std::size_t bar = line.find('|');
        if (line.rfind("    0", 0) != 0 || colon != 8 || bar == std::string::npos) {
            continue;
        }
        CHECK(std::stoul(line.substr(4, 4), nullptr, 16) == example.size());
        std::istringstream hex{line.substr(colon + 2, bar - colon - 2)};
        for (std::string byte; hex >> byte;) {
            example.push_back(static_cast<std::byte>(std::stoul(byte, nullptr, 16)));
        }
    }
    const Bytes written = stream_of(Tiny{});
    INFO("written: " << [&] {
        std::string text;
        for (const std::byte b : written) {
            text += fmt::format("{:02x} ", std::to_integer<unsigned>(b));
        }
        return text;
    }());
    CHECK(example == written);
}

TEST_CASE("every strict prefix of a snapshot is refused, and every trailing byte", "[state]") {
    SnapshotWriter writer;
    writer.put(0, sample());
    writer.put(1, Tiny{});
    Bytes bytes = writer.finish();
    for (std::size_t length = 0; length < bytes.size(); ++length) {
        CAPTURE(length);
        CHECK(!SnapshotReader::parse(std::span{bytes}.first(length)));
    }
    REQUIRE(SnapshotReader::parse(bytes));
    bytes.push_back(std::byte{0});
    const auto reader = SnapshotReader::parse(bytes);
    REQUIRE(!reader);
    CHECK(reader.error().text() == "snapshot: 1 bytes left over");
}

TEST_CASE("no changed bit of a snapshot goes unnoticed", "[state]") {
    const Bytes bytes = stream_of(sample());
    for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
        // The instance is not covered by the checksum: another one is missing when it is asked for.
        Bytes damaged = bytes;
        damaged[bit / 8] ^= std::byte{1} << (bit % 8);
        auto reader = SnapshotReader::parse(damaged);
        const bool accepted = reader && reader->take<Sample>(0) && reader->finish();
        // A must-fail section that becomes ignorable is the one change that a reader which knows it does not
        // see.
        CHECK(accepted == (bit == kFlags * 8));
    }
}

TEST_CASE("what a snapshot is not is told apart", "[state]") {
    CHECK(parse_error([](Bytes& b) { b[0] ^= std::byte{1}; }).text() ==
          "snapshot: this is not a Godwit snapshot");
    CHECK(parse_error([](Bytes& b) { b.clear(); }).code() == Code::corrupt);
    // A header of a later format is understood as far as saying so, even if nothing else follows.
    const vmm::Error format = parse_error([](Bytes& b) {
        b[kFormat] = std::byte{2};
        b.resize(kCount);
    });
    CHECK(format.code() == Code::version);
    CHECK(format.text() == "snapshot: format 2 is not known here, only 1");
    CHECK(parse_error([](Bytes& b) { b[kBody] ^= std::byte{1}; }).text() ==
          "snapshot: sample[0]: checksum is wrong");
    CHECK(parse_error([](Bytes& b) { b[kFlags] = std::byte{2}; }).text() ==
          "snapshot: sample[0]: unknown flags 0x2");
    CHECK(parse_error([](Bytes& b) { b[kNameLength] = std::byte{33}; }).code() == Code::corrupt);
}

TEST_CASE("huge counts and lengths in a snapshot are refused without allocating", "[state]") {
    const auto put = [](std::size_t at, std::uint32_t value) {
        return [=](Bytes& b) { vmm::store_le(b.data() + at, value); };
    };
    CHECK(parse_error(put(kCount, 0xffff'ffff)).code() == Code::limit);
    CHECK(parse_error(put(kCount, 4097)).code() == Code::limit);
    CHECK(parse_error(put(kCount, 4096)).code() == Code::corrupt);
    CHECK(parse_error(put(kLength, 0xffff'ffff)).code() == Code::corrupt);
    CHECK(parse_error(put(kLength, (1 << 20) + 1)).code() == Code::corrupt);
    const Bytes large(vmm::SnapshotLimits::kTotalBytes + 1);
    const auto reader = SnapshotReader::parse(large);
    REQUIRE(!reader);
    CHECK(reader.error().code() == Code::limit);
}

TEST_CASE("a section that is too new is told from one that is too old", "[state]") {
    {
        SnapshotReader reader = parse(stream_of(sample()));
        const auto state = reader.take<SampleV1>(0);
        REQUIRE(!state);
        CHECK(state.error().code() == Code::version);
        CHECK(state.error().text() == "snapshot: sample[0] has version 2, newer than 1 known here");
    }
    SnapshotReader reader = parse(stream_of(sample()));
    const auto state = reader.take<Strict>(0);
    REQUIRE(!state);
    CHECK(state.error().code() == Code::version);
    CHECK(state.error().text() == "snapshot: sample[0] has version 2, older than 3 still read here");
}

TEST_CASE("an error of decoding names its section", "[state]") {
    Sample wrong = sample();
    wrong.index = 200;
    SnapshotReader reader = parse(stream_of(wrong));
    const auto state = reader.take<Sample>(0);
    REQUIRE(!state);
    CHECK(state.error().text() == "sample[0]: does not hold: index < 128");
}

TEST_CASE("sections are found by name and instance, in any order", "[state]") {
    SnapshotWriter writer;
    Tiny other;
    other.port = 1;
    writer.put(1, other);
    writer.put(0, sample());
    writer.put(0, Tiny{});
    SnapshotReader reader = parse(writer.finish());
    CHECK(reader.has("tiny", 1));
    CHECK(!reader.has("tiny", 2));
    CHECK(!reader.has("tin", 0));
    CHECK(reader.take<Tiny>(0).value().port == 0x3f8);
    CHECK(reader.take<Tiny>(1).value().port == 1);
    CHECK(reader.take<Sample>(0));
    CHECK(reader.finish());
    CHECK(parse(writer.finish()).finish());
}

TEST_CASE("a missing section, or one asked for twice, is an error", "[state]") {
    SnapshotReader reader = parse(stream_of(Tiny{}));
    const auto missing = reader.take<Tiny>(1);
    REQUIRE(!missing);
    CHECK(missing.error().text() == "snapshot: section tiny[1] is missing");
    CHECK(!reader.take<Sample>(0));
    REQUIRE(reader.take<Tiny>(0));
    const auto twice = reader.take<Tiny>(0);
    REQUIRE(!twice);
    CHECK(twice.error().text() == "snapshot: tiny[0] is asked for twice");
}

TEST_CASE("a section that nobody knows is an error unless its sender said otherwise", "[state]") {
    SnapshotReader strict = parse(stream_of(Tiny{}));
    const auto finished = strict.finish();
    REQUIRE(!finished);
    CHECK(finished.error().text() == "snapshot: section tiny[0] is not known here");
    CHECK(parse(stream_of(Tiny{}, Unknown::may_ignore)).finish());
}

TEST_CASE("a section that appears twice is refused", "[state]") {
    SnapshotWriter writer;
    writer.put(0, Tiny{});
    writer.put(0, Tiny{});
    const auto reader = SnapshotReader::parse(writer.finish());
    REQUIRE(!reader);
    CHECK(reader.error().text() == "snapshot: tiny[0] appears twice");
}

TEST_CASE("a mutated snapshot with good checksums encodes to the same bytes when it is accepted", "[state]") {
    const Bytes original = stream_of(sample());
    std::mt19937 random{7};
    std::size_t accepted = 0;
    std::size_t wrong = 0;
    for (int i = 0; i < 50'000; ++i) {
        Bytes bytes = original;
        for (auto changes = 1 + random() % 3; changes != 0; --changes) {
            bytes[random() % bytes.size()] =
                static_cast<std::byte>(random() % 4 == 0 ? random() : random() % 3);
        }
        vmm::store_le(bytes.data() + kLength + 4,
                      static_cast<std::uint64_t>(XXH3_64bits(bytes.data() + kBody, bytes.size() - kBody)));
        auto reader = SnapshotReader::parse(bytes);
        if (!reader || vmm::load_le<std::uint16_t>(bytes.data() + kVersion) != 2) {
            continue;
        }
        const std::uint32_t instance = vmm::load_le<std::uint32_t>(bytes.data() + kInstance);
        const auto state = reader->take<Sample>(instance);
        if (state) {
            ++accepted;
            SnapshotWriter writer;
            writer.put(instance, *state,
                       bytes[kFlags] == std::byte{1} ? Unknown::may_ignore : Unknown::must_fail);
            wrong += writer.finish() == bytes ? 0 : 1;
        }
    }
    CHECK(wrong == 0);
    CHECK(accepted > 1'000);
}

TEST_CASE("our own state above the limits of the format aborts when it is written", "[state]") {
    Sample big;
    big.blob.resize(vmm::SnapshotLimits::kSectionBytes);
    CHECK(tests::aborts([&] { stream_of(big); }));
    big.blob.resize(vmm::SnapshotLimits::kSectionBytes - 256);
    CHECK(!tests::aborts([&] { stream_of(big); }));
    CHECK(tests::aborts([&] {
        SnapshotWriter writer;
        for (std::uint32_t i = 0; i <= vmm::SnapshotLimits::kSections; ++i) {
            writer.put(i, Tiny{});
        }
    }));
    // What is written must be readable.
    CHECK(tests::aborts([&] {
        SnapshotWriter writer;
        for (std::uint32_t i = 0; i < 65; ++i) {
            writer.put(i, big);
        }
        writer.finish();
    }));
}
