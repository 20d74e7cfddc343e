#include "vmm/guest/bus.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <vector>

#include "vmm/base/bytes.hpp"

using vmm::Bus;
using vmm::Code;

namespace {

// Answers each read with its own number, and remembers where it was asked.
class FakeBusDevice final : public vmm::BusDevice {
  public:
    explicit FakeBusDevice(std::byte number) : number_(number) {}

    void read(std::uint64_t offset, std::span<std::byte> data) override {
        reads.push_back(offset);
        std::fill(data.begin(), data.end(), number_);
    }
    void write(std::uint64_t offset, std::span<const std::byte> data) override {
        writes.emplace_back(offset, vmm::Bytes{data.begin(), data.end()});
    }

    std::vector<std::uint64_t> reads;
    std::vector<std::pair<std::uint64_t, vmm::Bytes>> writes;

  private:
    std::byte number_;
};

vmm::Bytes read(Bus& bus, std::uint64_t address, std::size_t size) {
    vmm::Bytes data(size, std::byte{0});
    bus.read(address, data);
    return data;
}

const vmm::Bytes kOnes(4, std::byte{0xff});

}  // namespace

TEST_CASE("an access reaches the device that covers it, as an offset", "[guest]") {
    Bus bus;
    FakeBusDevice one{std::byte{1}};
    FakeBusDevice two{std::byte{2}};
    REQUIRE(bus.insert(0x3f8, 8, one));
    REQUIRE(bus.insert(0x400, 4, two));
    CHECK(read(bus, 0x3f8, 1) == vmm::Bytes(1, std::byte{1}));
    CHECK(read(bus, 0x3fc, 4) == vmm::Bytes(4, std::byte{1}));
    CHECK(read(bus, 0x400, 4) == vmm::Bytes(4, std::byte{2}));
    CHECK(one.reads == std::vector<std::uint64_t>{0, 4});
    CHECK(two.reads == std::vector<std::uint64_t>{0});
    const vmm::Bytes sent{std::byte{0xaa}, std::byte{0xbb}};
    bus.write(0x402, sent);
    REQUIRE(two.writes.size() == 1);
    CHECK(two.writes[0] == std::pair<std::uint64_t, vmm::Bytes>{2, sent});
    CHECK(bus.unassigned_accesses() == 0);
}

TEST_CASE("an access that no device covers as a whole reads as ones and is counted", "[guest]") {
    Bus bus;
    FakeBusDevice one{std::byte{1}};
    FakeBusDevice two{std::byte{2}};
    CHECK(read(bus, 0, 4) == kOnes);
    REQUIRE(bus.insert(0x10, 8, one));
    REQUIRE(bus.insert(0x18, 8, two));
    CHECK(read(bus, 0x0f, 4) == kOnes);  // begins before a device
    CHECK(read(bus, 0x16, 4) == kOnes);  // spans two devices
    CHECK(read(bus, 0x1e, 4) == kOnes);  // ends past a device
    CHECK(read(bus, 0x20, 4) == kOnes);
    CHECK(read(bus, ~std::uint64_t{0}, 4) == kOnes);
    bus.write(0x16, kOnes);
    CHECK(one.reads.empty());
    CHECK(one.writes.empty());
    CHECK(two.reads.empty());
    CHECK(two.writes.empty());
    CHECK(bus.unassigned_accesses() == 7);
}

TEST_CASE("a range that overlaps, wraps or is empty is refused", "[guest]") {
    Bus bus;
    FakeBusDevice device{std::byte{1}};
    const auto refused = [&](std::uint64_t start, std::uint64_t size) {
        const auto inserted = bus.insert(start, size, device);
        return !inserted && inserted.error().code() == Code::invalid;
    };
    REQUIRE(bus.insert(0x100, 0x10, device));
    CHECK(refused(0x100, 0x10));
    CHECK(refused(0x10f, 1));
    CHECK(refused(0xff, 2));
    CHECK(refused(0x104, 4));
    CHECK(refused(0, 0x1000));
    CHECK(refused(0x200, 0));
    CHECK(refused(~std::uint64_t{0}, 2));
    CHECK(refused(1, ~std::uint64_t{0}));
    CHECK(bus.insert(0xff, 1, device));
    CHECK(bus.insert(0x110, 1, device));
    CHECK(bus.insert(~std::uint64_t{0}, 1, device));
    CHECK(read(bus, ~std::uint64_t{0}, 1) == vmm::Bytes(1, std::byte{1}));
}
