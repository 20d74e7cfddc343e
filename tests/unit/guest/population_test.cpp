#include "vmm/guest/population.hpp"

#include <catch2/catch.hpp>

using vmm::Bitmap;
using vmm::Gpa;
using vmm::GuestMemory;
using vmm::PopulationScan;
using vmm::RegionConfig;

TEST_CASE("exactly the pages ever written are found populated, by either way of asking", "[guest]") {
    constexpr std::uint64_t kRegionBytes = std::uint64_t{2} << 20;
    const std::vector<RegionConfig> regions{{Gpa{0}, kRegionBytes}, {Gpa{2 * kRegionBytes}, kRegionBytes}};
    auto memory = GuestMemory::create(regions, vmm::Backing::small);
    const auto scan = PopulationScan::create();
    REQUIRE((memory && scan));

    Bitmap expected{memory->page_limit()};
    // Alternating pages make more runs than one call of the kernel's returns.
    for (std::uint64_t page = 0; page < 512; page += 2) {
        expected.set(1024 + page);
    }
    expected.set(0);
    expected.set(511);
    expected.for_each_run(0, expected.size(), [&](std::size_t page, std::size_t) {
        REQUIRE(memory->store<std::uint8_t>(Gpa{page * vmm::kPageSize}, 1));
    });
    REQUIRE(memory->discard({1024, 1}));
    expected.clear(1024);

    Bitmap scanned{memory->page_limit()};
    Bitmap read{memory->page_limit()};
    // It adds to what the caller has.
    scanned.set(7);
    expected.set(7);
    read.set(7);
    for (const vmm::MemoryRegion& region : memory->regions()) {
        REQUIRE(scan->scan(*memory, region.pages(), scanned));
        REQUIRE(scan->scan_by_reading(*memory, region.pages(), read));
    }
    const auto same = [](const Bitmap& a, const Bitmap& b) {
        return std::equal(a.words().begin(), a.words().end(), b.words().begin(), b.words().end());
    };
    CHECK(same(scanned, expected));
    CHECK(same(read, expected));

    // Reading maps the kernel's zero page, which holds nothing to send.
    REQUIRE(memory->load<std::uint8_t>(Gpa{vmm::kPageSize}).value() == 0);
    Bitmap after{memory->page_limit()};
    REQUIRE(scan->scan(*memory, {0, 4}, after));
    CHECK(after.count() == 1);

    CHECK(!scan->scan(*memory, {512, 1}, after));
    CHECK(!scan->scan_by_reading(*memory, {511, 2}, after));
}
