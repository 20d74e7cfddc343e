#include "vmm/base/bytes.hpp"

#include <catch2/catch.hpp>

using vmm::ByteReader;
using vmm::Bytes;
using vmm::ByteWriter;

TEST_CASE("numbers are little-endian and without padding", "[base]") {
    Bytes out;
    ByteWriter writer{out};
    writer.put(std::uint8_t{0x01});
    writer.put(std::uint32_t{0x05040302});
    writer.put(std::uint16_t{0x0706});
    writer.put(std::uint64_t{0x0f0e0d0c0b0a0908});
    REQUIRE(out.size() == 15);
    for (std::size_t i = 0; i < out.size(); ++i) {
        CHECK(std::to_integer<std::size_t>(out[i]) == i + 1);
    }
}

TEST_CASE("a reader returns what a writer wrote, and then has nothing left", "[base]") {
    Bytes out;
    ByteWriter writer{out};
    writer.put(std::uint32_t{0xdeadbeef});
    writer.put(vmm::bytes_of(std::uint16_t{0x1234}));

    ByteReader reader{out};
    std::uint32_t number = 0;
    std::span<const std::byte> rest;
    REQUIRE(reader.get(number));
    CHECK(number == 0xdeadbeef);
    CHECK(reader.left() == 2);
    REQUIRE(reader.get(2, rest));
    CHECK(vmm::load_le<std::uint16_t>(rest.data()) == 0x1234);
    CHECK(reader.left() == 0);
}

TEST_CASE("a reader asked for more than is left takes nothing", "[base]") {
    const Bytes three(3, std::byte{7});
    ByteReader reader{three};
    std::uint32_t number = 42;
    std::span<const std::byte> bytes;
    CHECK(!reader.get(number));
    CHECK(number == 42);
    CHECK(!reader.get(4, bytes));
    CHECK(!reader.get(~std::size_t{0}, bytes));
    CHECK(bytes.empty());
    CHECK(reader.left() == 3);
    CHECK(reader.get(3, bytes));
    CHECK(reader.get(0, bytes));
}
