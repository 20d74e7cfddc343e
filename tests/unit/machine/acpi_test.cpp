// The tables as a guest reads them: found by their addresses, summed, and taken apart by offset.
#include "vmm/machine/acpi.hpp"

#include <catch2/catch.hpp>
#include <numeric>
#include <string_view>

#include "vmm/machine/aml.hpp"

namespace {

using vmm::Bytes;

constexpr std::uint64_t kBase = 0xe0000;

vmm::Platform platform(std::uint32_t vcpus, std::size_t windows) {
    vmm::Platform result;
    result.vcpus = vcpus;
    for (std::size_t i = 0; i < windows; ++i) {
        result.virtio.push_back({0xd0000000 + i * 0x1000, 0x1000, static_cast<std::uint32_t>(16 + i)});
    }
    result.com1 = {0x3f8, 4};
    result.rtc = 0x70;
    result.power = {0x600, 0x601, 0x602, 5, 1};
    return result;
}

unsigned sum(std::span<const std::byte> bytes) {
    return std::accumulate(bytes.begin(), bytes.end(), 0U,
                           [](unsigned total, std::byte b) { return total + std::to_integer<unsigned>(b); }) &
           0xff;
}

template <std::unsigned_integral T>
T at(std::span<const std::byte> bytes, std::size_t offset) {
    REQUIRE(offset + sizeof(T) <= bytes.size());
    return vmm::load_le<T>(bytes.data() + offset);
}

std::string text(std::span<const std::byte> bytes, std::size_t offset, std::size_t size) {
    REQUIRE(offset + size <= bytes.size());
    return {reinterpret_cast<const char*>(bytes.data()) + offset, size};
}

// The table at `address`, whose signature, length and checksum are right.
std::span<const std::byte> table(const Bytes& all, std::uint64_t address, std::string_view signature) {
    REQUIRE(address >= kBase);
    REQUIRE(address % 16 == 0);
    const std::span rest = std::span<const std::byte>{all}.subspan(address - kBase);
    REQUIRE(text(rest, 0, 4) == signature);
    const auto length = at<std::uint32_t>(rest, 4);
    REQUIRE(length <= rest.size());
    CHECK(sum(rest.first(length)) == 0);
    CHECK(text(rest, 10, 6) == "GODWIT");
    return rest.first(length);
}

struct Tables {
    std::span<const std::byte> fadt;
    std::span<const std::byte> madt;
    std::span<const std::byte> dsdt;
};

Tables tables(const Bytes& all) {
    REQUIRE(text(all, 0, 8) == "RSD PTR ");
    CHECK(sum(std::span{all}.first(20)) == 0);
    CHECK(sum(std::span{all}.first(36)) == 0);
    CHECK(at<std::uint8_t>(all, 15) == 2);
    CHECK(at<std::uint32_t>(all, 20) == 36);
    const auto xsdt = table(all, at<std::uint64_t>(all, 24), "XSDT");
    REQUIRE(xsdt.size() == 36 + 2 * 8);
    Tables found;
    found.fadt = table(all, at<std::uint64_t>(xsdt, 36), "FACP");
    found.madt = table(all, at<std::uint64_t>(xsdt, 44), "APIC");
    found.dsdt = table(all, at<std::uint64_t>(found.fadt, 140), "DSDT");
    return found;
}

std::size_t count(std::span<const std::byte> bytes, std::string_view what) {
    const std::string_view in{reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    std::size_t found = 0;
    for (std::size_t at = in.find(what); at != std::string_view::npos; at = in.find(what, at + 1)) {
        ++found;
    }
    return found;
}

Bytes hex(std::initializer_list<unsigned> values) {
    Bytes bytes;
    for (const unsigned value : values) {
        bytes.push_back(static_cast<std::byte>(value));
    }
    return bytes;
}

}  // namespace

TEST_CASE("the FADT is that of a hardware-reduced machine without legacy devices", "[machine]") {
    const Bytes all = vmm::acpi_tables(platform(1, 0), kBase);
    const auto fadt = tables(all).fadt;
    REQUIRE(fadt.size() == 276);
    CHECK(at<std::uint8_t>(fadt, 8) == 6);
    CHECK(at<std::uint8_t>(fadt, 131) == 4);
    CHECK(at<std::uint32_t>(fadt, 40) == 0);  // DSDT: only the 64-bit address
    CHECK(at<std::uint16_t>(fadt, 109) == 0x14);
    CHECK(at<std::uint32_t>(fadt, 112) == (1U << 20 | 1U << 10 | 7U << 4 | 1U));
    const auto check_port = [&](std::size_t offset, std::uint64_t port) {
        CHECK(at<std::uint32_t>(fadt, offset) == 0x01000801);
        CHECK(at<std::uint64_t>(fadt, offset + 4) == port);
    };
    check_port(116, 0x602);
    CHECK(at<std::uint8_t>(fadt, 128) == 1);
    check_port(244, 0x600);
    check_port(256, 0x601);
}

TEST_CASE("the MADT names every vCPU, the I/O APIC, and where the PIT is wired", "[machine]") {
    for (const std::uint32_t vcpus : {1U, 16U, 254U}) {
        const Bytes all = vmm::acpi_tables(platform(vcpus, 0), kBase);
        const auto madt = tables(all).madt;
        REQUIRE(madt.size() == 44 + vcpus * 8 + 12 + 10);
        CHECK(at<std::uint32_t>(madt, 36) == 0xfee00000);
        for (std::uint32_t i = 0; i < vcpus; ++i) {
            const std::size_t entry = 44 + i * 8;
            CHECK(at<std::uint16_t>(madt, entry) == 0x0800);
            CHECK(at<std::uint8_t>(madt, entry + 2) == i);
            CHECK(at<std::uint8_t>(madt, entry + 3) == i);
            CHECK(at<std::uint32_t>(madt, entry + 4) == 1);
        }
        const std::size_t io = 44 + vcpus * 8;
        CHECK(at<std::uint16_t>(madt, io) == 0x0c01);
        CHECK(at<std::uint32_t>(madt, io + 4) == 0xfec00000);
        CHECK(at<std::uint16_t>(madt, io + 12) == 0x0a02);
        CHECK(at<std::uint32_t>(madt, io + 16) == 2);
    }
}

TEST_CASE("the DSDT has a node for each device", "[machine]") {
    const Bytes all = vmm::acpi_tables(platform(2, 8), kBase);
    const auto dsdt = tables(all).dsdt;
    CHECK(count(dsdt, "LNRO0005") == 8);
    CHECK(count(dsdt, "PNP0501") == 1);
    CHECK(count(dsdt, "PNP0B00") == 1);
    const Bytes last =
        hex({0x86, 9, 0, 1, 0x00, 0x70, 0x00, 0xd0, 0x00, 0x10, 0, 0, 0x89, 6, 0, 3, 1, 23, 0, 0, 0});
    CHECK(count(dsdt, {reinterpret_cast<const char*>(last.data()), last.size()}) == 1);
    const Bytes soft_off = hex({0x08, '\\', '_', 'S', '5', '_', 0x12, 7, 4, 0x0a, 5, 0, 0, 0});
    CHECK(count(dsdt, {reinterpret_cast<const char*>(soft_off.data()), soft_off.size()}) == 1);
}

TEST_CASE("the tables of the largest machine fit between their place and 1 MiB", "[machine]") {
    CHECK(vmm::acpi_tables(platform(254, 256), kBase).size() <= 0x100000 - kBase);
}

TEST_CASE("AML lengths count themselves", "[machine]") {
    // What is behind the opcode of a scope with a string of `size` bytes in it: the length, and 11 bytes
    // more.
    const auto length = [](std::size_t size) {
        vmm::AmlWriter terms;
        terms.name("ABCD", std::string(size, 'x'));
        vmm::AmlWriter scope;
        scope.scope("EFGH", terms);
        const auto end = scope.bytes().end() - static_cast<std::ptrdiff_t>(size + 11);
        return Bytes{scope.bytes().begin() + 1, end};
    };
    CHECK(length(0) == hex({12}));
    CHECK(length(51) == hex({63}));
    CHECK(length(52) == hex({0x41, 0x04}));
    CHECK(length(4082) == hex({0x4f, 0xff}));
    CHECK(length(4083) == hex({0x81, 0x00, 0x01}));
}

TEST_CASE("AML integers take the least bytes", "[machine]") {
    const auto coded = [](std::uint64_t value) {
        vmm::AmlWriter writer;
        writer.name("ABCD", value);
        return Bytes{writer.bytes().begin() + 5, writer.bytes().end()};
    };
    CHECK(coded(0) == hex({0}));
    CHECK(coded(1) == hex({1}));
    CHECK(coded(2) == hex({0x0a, 2}));
    CHECK(coded(255) == hex({0x0a, 255}));
    CHECK(coded(256) == hex({0x0b, 0, 1}));
    CHECK(coded(0x10000) == hex({0x0c, 0, 0, 1, 0}));
    CHECK(coded(std::uint64_t{1} << 32) == hex({0x0e, 0, 0, 0, 0, 1, 0, 0, 0}));
}
