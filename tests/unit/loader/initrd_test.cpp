// How the formats other than bzImage hand over an initrd.
#include "tests/unit/loader/loading.hpp"

using namespace tests;
using vmm::BootImage;
using vmm::BootSegment;
using vmm::Bytes;

namespace {

BootImage with_initrd(const Bytes& file, std::size_t size, std::uint64_t mib) {
    auto image = load_image(file, "line", mib, Bytes(size, std::byte{7}));
    INFO((image ? "" : image.error().text()));
    REQUIRE(image);
    check_sound(*image, mib);
    return std::move(*image);
}

}  // namespace

TEST_CASE("PVH has the initrd as its one module", "[loader]") {
    const BootImage image = with_initrd(pvh_image(), 5000, 5 * 1024);
    REQUIRE(image.segments.size() == 5);
    const BootSegment& initrd = image.segments[1];
    CHECK(initrd.gpa == 0xc0000000 - 8192);
    CHECK(initrd.data == Bytes(5000, std::byte{7}));
    const BootSegment& info = image.segments[2];
    REQUIRE(at<std::uint32_t>(info, info.gpa + 12) == 1);
    const auto list = at<std::uint64_t>(info, info.gpa + 16);
    CHECK(at<std::uint64_t>(info, list) == initrd.gpa);
    CHECK(at<std::uint64_t>(info, list + 8) == 5000);
    CHECK(at<std::uint64_t>(info, list + 16) == 0);
    CHECK(text_at(info, at<std::uint64_t>(info, info.gpa + 24)) == "line");
    CHECK(at<std::uint64_t>(info, at<std::uint64_t>(info, info.gpa + 40) + 8) == 0x9fc00);
}

TEST_CASE("multiboot has the initrd as its one module", "[loader]") {
    const BootImage image = with_initrd(multiboot_elf(), 5000, 64);
    REQUIRE(image.segments.size() == 5);
    const BootSegment& initrd = image.segments[1];
    CHECK(initrd.gpa == (64 << 20) - 8192);
    const BootSegment& info = image.segments[2];
    CHECK(at<std::uint32_t>(info, info.gpa) == 0x24d);
    REQUIRE(at<std::uint32_t>(info, info.gpa + 20) == 1);
    const auto list = at<std::uint32_t>(info, info.gpa + 24);
    CHECK(at<std::uint32_t>(info, list) == initrd.gpa);
    CHECK(at<std::uint32_t>(info, list + 4) == initrd.gpa + 5000);
    CHECK(at<std::uint32_t>(info, list + 8) == 0);
    CHECK(text_at(info, at<std::uint32_t>(info, info.gpa + 16)) == "line");
    CHECK(text_at(info, at<std::uint32_t>(info, info.gpa + 64)) == "Godwit");
}

TEST_CASE("an initrd goes below a segment that is in its way", "[loader]") {
    Bytes file = pvh_image();
    patch(file, PvhAt::kLoad + 24, std::uint64_t{(64 << 20) - 0x3000});
    patch(file, PvhAt::kXenNote + 16, std::uint64_t{(64 << 20) - 0x3000});
    const BootImage image = with_initrd(file, 4096, 64);
    CHECK(image.segments[1].gpa == (64 << 20) - 0x4000);
}

TEST_CASE("an initrd that does not fit or has no use is refused", "[loader]") {
    const auto refused = load_image(pvh_image(), "", 8, Bytes(std::size_t{7} << 20));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().text().find("initrd: no room") != std::string::npos);
    const auto flat = load_image(Bytes(512, std::byte{0xf4}), "", 64, Bytes(1));
    REQUIRE_FALSE(flat);
    CHECK(flat.error().text().find("takes no initrd") != std::string::npos);
}
