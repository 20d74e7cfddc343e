#include "migration/preflight.hpp"

#include <catch2/catch.hpp>

using namespace migration;
using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t kGuestRam = std::uint64_t{1} << 30;

// A guest and a destination that fit.
Manifest make_manifest() {
    Manifest manifest;
    manifest.name = "guest";
    manifest.ram_bytes = kGuestRam;
    manifest.used_pages = 1000;
    manifest.cpu.vcpus = 2;
    manifest.devices = {{"serial-16550", 0, 1}};
    return manifest;
}

Offer make_offer() {
    Offer offer;
    offer.host.capabilities.max_vcpus = 8;
    offer.devices = {{{"serial-16550", 1, 1}, 0}};
    offer.available_memory_bytes = kGuestRam;
    offer.total_memory_bytes = kGuestRam;
    return offer;
}

std::vector<std::string> codes(const Manifest& manifest, const Offer& offer) {
    std::vector<std::string> found;
    for (const Reason& reason : examine(manifest, offer).reasons) {
        CHECK(!reason.what.empty());
        CHECK(!reason.where.empty());
        CHECK(!reason.remedy.empty());
        found.push_back(reason.code);
    }
    return found;
}

using Codes = std::vector<std::string>;

}  // namespace

TEST_CASE("preflight: a guest that fits", "[migration]") {
    CHECK(codes(make_manifest(), make_offer()) == Codes{});
}

TEST_CASE("preflight: each reason by itself", "[migration]") {
    Manifest manifest = make_manifest();
    Offer offer = make_offer();
    SECTION("memory limit") {
        offer.max_memory_bytes = kGuestRam - 1;
        CHECK(codes(manifest, offer) == Codes{"memory_limit"});
    }
    SECTION("memory limit is inclusive") {
        offer.max_memory_bytes = kGuestRam;
        CHECK(codes(manifest, offer) == Codes{});
    }
    SECTION("memory left") {
        offer.available_memory_bytes = 1000 * 4096 - 1;
        CHECK(codes(manifest, offer) == Codes{"memory_available"});
    }
    SECTION("cpu limit") {
        offer.max_cpus = 1;
        CHECK(codes(manifest, offer) == Codes{"cpu_limit"});
    }
    SECTION("unknown device") {
        manifest.devices.push_back({"virtio-crystal", 2, 1});
        CHECK(codes(manifest, offer) == Codes{"unknown_device"});
    }
    SECTION("another instance is another device") {
        manifest.devices[0].instance = 1;
        CHECK(codes(manifest, offer) == Codes{"unknown_device", "surplus_device"});
    }
    SECTION("another id is another device") {
        manifest.devices[0].id = "data";
        CHECK(codes(manifest, offer) == Codes{"unknown_device", "surplus_device"});
    }
    SECTION("a disk of another size, or of other use") {
        manifest.devices.push_back({"virtio-blk", 0, 1, "data", 1 << 20, false});
        offer.devices.push_back({{"virtio-blk", 1, 1}, 0, "data", 1 << 20, false});
        CHECK(codes(manifest, offer) == Codes{});
        offer.devices.back().bytes = 2 << 20;
        CHECK(codes(manifest, offer) == Codes{"other_disk"});
        CHECK(examine(manifest, offer).reasons[0].where == "device virtio-blk \"data\"");
        offer.devices.back() = {{"virtio-blk", 1, 1}, 0, "data", 1 << 20, true};
        CHECK(codes(manifest, offer) == Codes{"other_disk"});
    }
    SECTION("a device that is there twice") {
        manifest.devices.push_back(manifest.devices[0]);
        CHECK(codes(manifest, offer) == Codes{"bad_manifest"});
    }
    SECTION("an id that is there twice") {
        manifest.devices[0].id = "a";
        manifest.devices.push_back({"virtio-blk", 0, 1, "a"});
        CHECK(codes(manifest, offer) == Codes{"bad_manifest"});
    }
    SECTION("device too new") {
        manifest.devices[0].version = 2;
        CHECK(codes(manifest, offer) == Codes{"device_version"});
    }
    SECTION("device that the guest does not have") {
        offer.devices.push_back({{"rtc-cmos", 1, 1}, 0});
        CHECK(codes(manifest, offer) == Codes{"surplus_device"});
    }
    SECTION("a CPU feature") {
        manifest.cpu.cpuid.entries = {{7, 0, 1, 0, 1u << 16, 0, 0}};
        const auto reasons = examine(manifest, offer).reasons;
        REQUIRE(!reasons.empty());
        CHECK(reasons[0].code == "cpu_feature");
    }
    SECTION("nonsense sizes") {
        manifest.ram_bytes = GENERATE(std::uint64_t{0}, std::uint64_t{4097});
        CHECK(codes(manifest, offer) == Codes{"bad_manifest"});
    }
    SECTION("more memory than the host has") {
        offer.total_memory_bytes = kGuestRam - 1;
        CHECK(codes(manifest, offer) == Codes{"memory_limit"});
    }
    SECTION("more used than there is") {
        manifest.used_pages = UINT64_MAX;
        CHECK(codes(manifest, offer) == Codes{"bad_manifest"});
    }
}

TEST_CASE("preflight: all reasons come at once", "[migration]") {
    Manifest manifest = make_manifest();
    Offer offer = make_offer();
    offer.max_memory_bytes = 1;
    offer.max_cpus = 1;
    manifest.devices.push_back({"virtio-crystal", 0, 1});
    CHECK(codes(manifest, offer) == Codes{"memory_limit", "cpu_limit", "unknown_device"});
}

TEST_CASE("preflight: clocks that differ are a warning, not a reason", "[migration]") {
    CHECK(!clock_warning(99ms));
    CHECK(!clock_warning(-99ms));
    REQUIRE(clock_warning(150ms));
    CHECK_THAT(clock_warning(150ms)->what, Catch::Contains("150 ms ahead of"));
    CHECK_THAT(clock_warning(-150ms)->what, Catch::Contains("150 ms behind"));
}
