// One struct's bytes: what the decoder accepts, and what encode, describe, dump and first_difference make of
// it.
#include <catch2/catch.hpp>
#include <random>

#include "tests/golden/golden.hpp"
#include "tests/unit/base/death.hpp"
#include "tests/unit/state/sample.hpp"
#include "vmm/state/decode.hpp"
#include "vmm/state/describe.hpp"
#include "vmm/state/encode.hpp"
#include "vmm/state/gather.hpp"

using tests::sample;
using tests::Sample;
using tests::SampleV1;
using vmm::Bytes;
using vmm::Code;
using vmm::decode;
using vmm::encode;

namespace {

// Offsets in the encoded sample(), counted by hand.
constexpr std::size_t kIndex = 0;
constexpr std::size_t kEnabled = 7;
constexpr std::size_t kMode = 8;
constexpr std::size_t kRegistersLength = 9;
constexpr std::size_t kBlobLength = 29;
constexpr std::size_t kLabelLength = 36;
constexpr std::size_t kTimersCount = 46;
constexpr std::size_t kNumbersCount = 60;

void put_u32(Bytes& bytes, std::size_t at, std::uint32_t value) {
    vmm::store_le(bytes.data() + at, value);
}

// The error of decoding the sample after `change`.
template <typename F>
vmm::Error decode_error(F&& change) {
    Bytes bytes = encode(sample());
    change(bytes);
    auto decoded = decode<Sample>(bytes, 2);
    REQUIRE(!decoded);
    return decoded.error();
}

}  // namespace

TEST_CASE("the schema of a state cannot change unnoticed", "[state]") {
    tests::check_golden("schema/sample-v1.txt", vmm::describe<SampleV1>());
    tests::check_golden("schema/sample-v2.txt", vmm::describe<Sample>());
}

TEST_CASE("a state decodes to what was encoded", "[state]") {
    const Bytes bytes = encode(sample());
    const auto decoded = decode<Sample>(bytes, 2);
    REQUIRE(decoded);
    CHECK(vmm::first_difference(*decoded, sample()) == "");
    CHECK(encode(*decoded) == bytes);
}

TEST_CASE("every strict prefix of a state is refused, and every trailing byte", "[state]") {
    Bytes bytes = encode(sample());
    for (std::size_t length = 0; length < bytes.size(); ++length) {
        CAPTURE(length);
        CHECK(!decode<Sample>(std::span{bytes}.first(length), 2));
    }
    bytes.push_back(std::byte{0});
    const auto decoded = decode<Sample>(bytes, 2);
    REQUIRE(!decoded);
    CHECK(decoded.error().text() == "1 bytes left over");
}

TEST_CASE("an older version decodes with the default of the field it lacks", "[state]") {
    const Bytes old = encode(sample<SampleV1>());
    const auto decoded = decode<Sample>(old, 1);
    REQUIRE(decoded);
    CHECK(decoded->speed == 100);
    Sample expected = sample();
    expected.speed = 100;
    CHECK(vmm::first_difference(*decoded, expected) == "");
    CHECK(!decode<Sample>(old, 2));
    CHECK(!decode<Sample>(encode(sample()), 1));
}

TEST_CASE("a bool is 0 or 1, an enum is in range, a check holds", "[state]") {
    CHECK(decode_error([](Bytes& b) { b[kEnabled] = std::byte{2}; }).text() == "does not hold: enabled");
    CHECK(decode_error([](Bytes& b) { b[kMode] = std::byte{3}; }).text() == "mode: value 3 is out of range");
    CHECK(decode_error([](Bytes& b) { b[kIndex] = std::byte{128}; }).text() == "does not hold: index < 128");
    CHECK(decode_error([](Bytes& b) { b[kTimersCount + 4 + 5] = std::byte{1}; }).text() ==
          "does not hold: a timer that is not armed has no deadline");
}

TEST_CASE("a count above the limit of its field is refused as such", "[state]") {
    for (const std::size_t at : {kLabelLength, kTimersCount, kNumbersCount}) {
        CAPTURE(at);
        CHECK(decode_error([&](Bytes& b) { put_u32(b, at, 0xffff'ffff); }).code() == Code::limit);
    }
    CHECK(decode_error([](Bytes& b) { put_u32(b, kNumbersCount, 5); }).text() == "numbers: 5 is more than 4");
    CHECK(decode_error([](Bytes& b) { put_u32(b, kLabelLength, 17); }).text() == "label: 17 is more than 16");
}

TEST_CASE("a huge count within its limit does not allocate before the bytes are there", "[state]") {
    // 4 GiB would be reserved, or a thousand timers filled in, by a decoder that trusts the count.
    CHECK(decode_error([](Bytes& b) { put_u32(b, kBlobLength, 0xffff'fff0); }).text() == "blob: truncated");
    Bytes bytes = encode(sample());
    put_u32(bytes, kTimersCount, 1000);
    vmm::Decoder decoder{bytes, 2};
    Sample s;
    Sample::visit(s, decoder);
    REQUIRE(!decoder.finish());
    CHECK(s.timers.capacity() < 32);
    CHECK(s.blob.capacity() < 32);
}

TEST_CASE("a struct of another size is a mismatch with this host, not a cast", "[state]") {
    const vmm::Error shorter = decode_error([](Bytes& b) { put_u32(b, kRegistersLength, 15); });
    CHECK(shorter.code() == Code::mismatch);
    CHECK(shorter.text() == "registers: 15 bytes, this host's is 16");
    CHECK(decode_error([](Bytes& b) { put_u32(b, kRegistersLength, 17); }).code() == Code::limit);
}

TEST_CASE("a mutated state that is accepted encodes to the same bytes", "[state]") {
    const Bytes original = encode(sample());
    const Bytes older = encode(sample<SampleV1>());
    std::mt19937 random{20240229};
    std::size_t accepted = 0;
    std::size_t wrong = 0;
    for (int i = 0; i < 200'000; ++i) {
        const bool v1 = random() % 4 == 0;
        Bytes bytes = v1 ? older : original;
        for (auto changes = 1 + random() % 4; changes != 0; --changes) {
            const std::size_t at = random() % bytes.size();
            const auto position = bytes.begin() + static_cast<std::ptrdiff_t>(at);
            const auto value = static_cast<std::byte>(random());
            switch (random() % 6) {
                case 0:
                    bytes.insert(position, value);
                    break;
                case 1:
                    bytes.erase(position);
                    break;
                case 2:
                    bytes[at] = std::byte{static_cast<unsigned char>(random() % 3)};
                    break;
                case 3:
                    bytes[at] ^= std::byte{1} << (random() % 8);
                    break;
                default:
                    bytes[at] = value;
                    break;
            }
        }
        const auto decoded = decode<Sample>(bytes, v1 ? 1 : 2);
        if (decoded) {
            ++accepted;
            Bytes again = encode(*decoded);
            if (v1) {
                again.resize(again.size() - sizeof decoded->speed);
            }
            wrong += again == bytes ? 0 : 1;
        }
    }
    CHECK(wrong == 0);
    // Otherwise this proved nothing.
    CHECK(accepted > 10'000);
    CHECK(accepted < 190'000);
}

TEST_CASE("our own value above its limit aborts when it is encoded", "[state]") {
    Sample s = sample();
    s.label = std::string(17, 'x');
    CHECK(tests::aborts([&] { encode(s); }));
    s = sample();
    s.numbers.resize(5);
    CHECK(tests::aborts([&] { encode(s); }));
    s = sample();
    s.timers.resize(Sample::kMaxTimers + 1);
    CHECK(tests::aborts([&] { encode(s); }));
}

TEST_CASE("a dump names every field, and every 8 bytes of a blob", "[state]") {
    std::string text;
    for (const vmm::FieldValue& value : vmm::dump(sample())) {
        text += value.path + "=" + value.value + "\n";
    }
    CHECK(text ==
          "index=0x7\nports[0]=0x3f8\nports[1]=0x2f8\nports[2]=0xffff\nenabled=0x1\nmode=1\n"
          "registers+0=8877665544332211\nregisters+8=f0ff000000000000\nblob.count=3\nblob+0=deadbe\n"
          "label=godwit\ntimers.count=2\ntimers[0].deadline=0x3e8\ntimers[0].armed=0x1\n"
          "timers[1].deadline=0x0\ntimers[1].armed=0x0\nnumbers.count=2\nnumbers[0]=0x1\n"
          "numbers[1]=0xffffffffffffffff\nwatchdog.deadline=0x5\nwatchdog.armed=0x1\nspeed=0xfa\n");
}

TEST_CASE("the first difference is named, in a field of any kind", "[state]") {
    const auto difference = [](auto change) {
        Sample other = sample();
        change(other);
        return vmm::first_difference(sample(), other);
    };
    CHECK(difference([](Sample&) {}) == "");
    CHECK(difference([](Sample& s) { s.ports[1] = 0; }) == "ports[1]: 0x2f8 against 0x0");
    CHECK(difference([](Sample& s) { s.registers.rip = 0; }) ==
          "registers+8: f0ff000000000000 against 0000000000000000");
    CHECK(difference([](Sample& s) { s.blob.clear(); }) == "blob.count: 3 against 0");
    CHECK(difference([](Sample& s) { s.label = "x"; }) == "label: godwit against x");
    CHECK(difference([](Sample& s) { s.timers.clear(); }) == "timers.count: 2 against 0");
    CHECK(difference([](Sample& s) { s.timers[1] = {1, true}; }) == "timers[1].deadline: 0x0 against 0x1");
    CHECK(difference([](Sample& s) { s.speed = 1; }) == "speed: 0xfa against 0x1");
}

TEST_CASE("gathered in place, a value has the same bytes, and large ones are not copied", "[state]") {
    for (const std::size_t size : {std::size_t{0}, vmm::GatheredBytes::kReferred - 1,
                                   vmm::GatheredBytes::kReferred, std::size_t{100'000}}) {
        Sample value = sample();
        value.blob.assign(size, std::byte{0x5a});
        const vmm::GatheredBytes gathered = vmm::encode_in_place(value);
        Bytes joined;
        bool in_place = false;
        for (const auto part : gathered.parts()) {
            joined.insert(joined.end(), part.begin(), part.end());
            in_place = in_place || part.data() == value.blob.data();
        }
        CHECK(joined == encode(value));
        CHECK(gathered.size() == joined.size());
        CHECK(in_place == (size >= vmm::GatheredBytes::kReferred));
    }
}
