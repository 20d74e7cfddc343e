// What is done with an image around the loaders: reading its file, and placing it in memory.
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "tests/unit/loader/images.hpp"
#include "vmm/machine/loader.hpp"

using tests::ram;
using vmm::BootImage;
using vmm::Bytes;

namespace {

vmm::Result<Bytes> read_image(const std::string& path) {
    return vmm::read_boot_file(path, "image", vmm::kMaxImageFile);
}

}  // namespace

TEST_CASE("place writes data and zeros, again and again", "[loader]") {
    auto memory = vmm::GuestMemory::create(ram(8), vmm::Backing::small);
    REQUIRE(memory);
    BootImage image;
    image.segments.push_back({0x100ffe, Bytes(4, std::byte{7}), 0x5001});
    const Bytes dirt(0x8000, std::byte{0xee});
    for (int i = 0; i < 2; ++i) {
        REQUIRE(memory->write(vmm::Gpa{0x100000}, dirt));
        REQUIRE(vmm::place(image, *memory));
        Bytes got(dirt.size());
        REQUIRE(memory->read(vmm::Gpa{0x100000}, got));
        Bytes expected = dirt;
        std::fill_n(expected.begin() + 0xffe, 4, std::byte{7});
        std::fill_n(expected.begin() + 0x1002, 0x5001, std::byte{0});
        CHECK(got == expected);
    }
    // Images also come from a snapshot, where anything may stand.
    const auto refused = [&](std::uint64_t gpa, std::uint64_t zeros) {
        BootImage bad;
        bad.segments.push_back({gpa, Bytes(4), zeros});
        const auto placed = vmm::place(bad, *memory);
        return !placed && placed.error().text().find("boot segment 0") != std::string::npos;
    };
    CHECK(refused(std::uint64_t{8} << 20, 0));
    CHECK(refused((std::uint64_t{8} << 20) - 4, 1));
    CHECK(refused(~std::uint64_t{0} - 3, 0));
    CHECK(refused(~std::uint64_t{0} - 1, 0));
    CHECK(refused(0x100000, ~std::uint64_t{0}));
    CHECK(refused(0x100000, ~std::uint64_t{0} - 0x100004));
}

TEST_CASE("an image file is a regular file of a sane size", "[loader]") {
    const std::filesystem::path folder =
        std::filesystem::temp_directory_path() / fmt::format("loader-{}", ::getpid());
    std::filesystem::create_directory(folder);
    const std::string path = folder / "image";
    std::ofstream{path} << "bytes";
    const auto bytes = read_image(path);
    REQUIRE(bytes);
    CHECK(bytes->size() == 5);
    std::filesystem::resize_file(path, 0);
    CHECK(read_image(path).error().code() == vmm::Code::invalid);
    std::filesystem::resize_file(path, vmm::kMaxImageFile + 1);
    CHECK(read_image(path).error().code() == vmm::Code::limit);
    CHECK_FALSE(read_image(folder));
    CHECK_FALSE(read_image("/dev/zero"));
    REQUIRE(::mkfifo((folder / "fifo").c_str(), 0600) == 0);
    CHECK_FALSE(read_image(folder / "fifo"));
    CHECK_FALSE(read_image(folder / "missing"));
    std::filesystem::remove_all(folder);
}
