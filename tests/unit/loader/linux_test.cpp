// Linux bzImages made by hand: what the zero page, the page tables and the GDT say, and what is refused.
#include <random>

#include "tests/unit/loader/loading.hpp"

using namespace tests;
using vmm::BootImage;
using vmm::BootSegment;
using vmm::Bytes;
using vmm::EntryMode;

namespace {

const BootSegment& segment_at(const BootImage& image, std::uint64_t gpa) {
    const auto found = std::find_if(image.segments.begin(), image.segments.end(), [&](const auto& segment) {
        return gpa >= segment.gpa && gpa - segment.gpa < segment.data.size() + segment.zero_bytes;
    });
    INFO("address " << gpa);
    REQUIRE(found != image.segments.end());
    return *found;
}

template <std::unsigned_integral T>
T at(const BootImage& image, std::uint64_t gpa) {
    return tests::at<T>(segment_at(image, gpa), gpa);
}

// Where the page tables lead, as a CPU walks them; nothing that they do not map.
std::optional<std::uint64_t> translate(const BootImage& image, std::uint64_t address) {
    constexpr std::uint64_t kPresent = 1;
    constexpr std::uint64_t kLarge = 0x80;
    std::uint64_t table = image.cr3;
    for (const unsigned shift : {39U, 30U, 21U}) {
        const auto entry = at<std::uint64_t>(image, table + (address >> shift) % 512 * 8);
        if ((entry & kPresent) == 0) {
            return std::nullopt;
        }
        if ((entry & kLarge) != 0) {
            return (entry & ~std::uint64_t{0xfff}) + address % (std::uint64_t{1} << shift);
        }
        table = entry & ~std::uint64_t{0xfff};
    }
    return std::nullopt;
}

// The image with an initrd of `size` bytes, of which the first is 1.
BootImage linux_with_initrd(const Bytes& file, std::size_t size, std::uint64_t mib = 64) {
    Bytes initrd(size);
    initrd[0] = std::byte{1};
    auto image = load_image(file, "", mib, std::move(initrd));
    INFO((image ? "" : image.error().text()));
    REQUIRE(image);
    return std::move(*image);
}

}  // namespace

TEST_CASE("a bzImage starts in 64-bit mode with its zero page in RSI", "[loader]") {
    const BootImage image = loaded(linux_image(), "console=ttyS0", 5 * 1024);
    CHECK(image.mode == EntryMode::long64);
    CHECK(image.entry == LinuxAt::kAddress + 0x200);
    const BootSegment& kernel = segment_at(image, LinuxAt::kAddress);
    CHECK(kernel.gpa == LinuxAt::kAddress);
    CHECK(kernel.data == Bytes(LinuxAt::kKernelBytes, std::byte{0x90}));
    CHECK(kernel.zero_bytes == 0x10000 - LinuxAt::kKernelBytes);

    const std::uint64_t zero_page = image.rsi;
    CHECK(at<std::uint64_t>(image, zero_page + 0x70) == 0xe0000);
    CHECK(at<std::uint8_t>(image, zero_page + 0x210) == 0xff);
    CHECK(at<std::uint32_t>(image, zero_page + 0x202) == 0x53726448);
    CHECK(at<std::uint32_t>(image, zero_page + LinuxAt::kInitSize) == 0x10000);
    CHECK(at<std::uint32_t>(image, zero_page + 0x218) == 0);
    CHECK(at<std::uint32_t>(image, zero_page + 0x21c) == 0);
    const auto line = at<std::uint32_t>(image, zero_page + 0x228);
    CHECK(text_at(segment_at(image, line), line) == "console=ttyS0");
    const std::vector<std::array<std::uint64_t, 3>> map{
        {0, 0x9fc00, 1}, {0x9fc00, 0x60400, 2}, {0x100000, 0xbff00000, 1}, {0x100000000, 0x80000000, 1}};
    REQUIRE(at<std::uint8_t>(image, zero_page + 0x1e8) == map.size());
    for (std::size_t i = 0; i < map.size(); ++i) {
        CHECK(at<std::uint64_t>(image, zero_page + 0x2d0 + i * 20) == map[i][0]);
        CHECK(at<std::uint64_t>(image, zero_page + 0x2d0 + i * 20 + 8) == map[i][1]);
        CHECK(at<std::uint32_t>(image, zero_page + 0x2d0 + i * 20 + 16) == map[i][2]);
    }
    check_sound(image, 5 * 1024);
}

TEST_CASE("the first 4 GiB are mapped to themselves at the entry of a bzImage", "[loader]") {
    const BootImage image = loaded(linux_image());
    CHECK(image.cr3 % 4096 == 0);
    for (const std::uint64_t address :
         {std::uint64_t{0}, image.rsi, image.entry, std::uint64_t{0x3fffffff}, std::uint64_t{0x40000000},
          std::uint64_t{0xbffff123}, std::uint64_t{0xffffffff}}) {
        CHECK(translate(image, address) == address);
    }
    CHECK_FALSE(translate(image, std::uint64_t{1} << 32));
    CHECK(at<std::uint64_t>(image, image.gdt) == 0);
    CHECK(at<std::uint64_t>(image, image.gdt + 0x10) == 0x00af9b000000ffff);
    CHECK(at<std::uint64_t>(image, image.gdt + 0x18) == 0x00cf93000000ffff);
}

TEST_CASE("what a bzImage is given lies below the trampoline of its decompressor", "[loader]") {
    const BootImage image = linux_with_initrd(linux_image(), 5000);
    for (const std::uint64_t gpa :
         {image.cr3, image.gdt, image.rsi, std::uint64_t{at<std::uint32_t>(image, image.rsi + 0x228)}}) {
        const BootSegment& segment = segment_at(image, gpa);
        CHECK(segment.gpa + segment.data.size() <= 0x1e000);
    }
}

TEST_CASE("a bzImage goes where its header wants it", "[loader]") {
    const Bytes good = linux_image();
    CHECK(loaded(with(good, LinuxAt::kPreferredAddress, std::uint64_t{0x1000001})).entry == 0x1200200);
    CHECK(loaded(with(good, LinuxAt::kPreferredAddress, std::uint64_t{0})).entry == 0x200200);
    const Bytes fixed = with(good, LinuxAt::kRelocatable, std::uint8_t{0});
    CHECK(loaded(with(fixed, LinuxAt::kPreferredAddress, std::uint64_t{0x1000010})).entry == 0x1000210);
    // Nothing is said about a kernel that needs less than it has.
    const BootImage image = loaded(with(good, LinuxAt::kInitSize, std::uint32_t{1}));
    CHECK(segment_at(image, LinuxAt::kAddress).zero_bytes == 0);
}

TEST_CASE("an initrd is on a page boundary as high as the kernel allows", "[loader]") {
    const auto placed = [](const BootImage& image) {
        const auto start = at<std::uint32_t>(image, image.rsi + 0x218);
        CHECK(at<std::uint32_t>(image, image.rsi + 0x21c) == 5000);
        CHECK(at<std::uint8_t>(image, start) == 1);
        CHECK(segment_at(image, start).data.size() == 5000);
        return start;
    };
    const BootImage image = linux_with_initrd(linux_image(), 5000);
    CHECK(placed(image) == (64U << 20) - 8192);
    check_sound(image, 64);
    CHECK(placed(linux_with_initrd(linux_image(), 5000, 5 * 1024)) == 0x80000000 - 8192);
    const Bytes low = with(linux_image(), LinuxAt::kInitrdAddressMax, std::uint32_t{0x1004fff});
    CHECK(placed(linux_with_initrd(low, 5000)) == LinuxAt::kAddress - 8192);
    const Bytes anywhere = with(linux_image(), LinuxAt::kInitrdAddressMax, ~std::uint32_t{0});
    CHECK(placed(linux_with_initrd(anywhere, 5000, 5 * 1024)) == 0xc0000000 - 8192);
    const auto refused = load_image(linux_image(), "", 20, Bytes(std::size_t{16} << 20));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().text().find("initrd: no room for 16777216 bytes") != std::string::npos);
}

TEST_CASE("each defect of a bzImage has its own refusal", "[loader]") {
    const Bytes good = linux_image();
    check_refused(with(good, LinuxAt::kVersion, std::uint16_t{0x20b}),
                  "protocol 2.11 without a 64-bit entry");
    check_refused(with(good, LinuxAt::kExtendedLoadFlags, std::uint16_t{0x7e}), "without a 64-bit entry");
    check_refused(with(good, LinuxAt::kLoadFlags, std::uint8_t{0}), "without a 64-bit entry");
    check_refused(with(good, LinuxAt::kHeaderLength, std::uint8_t{0x61}), "ends at 0x263");
    check_refused(with(good, LinuxAt::kHeaderLength, std::uint8_t{0x8f}), "ends at 0x291");
    check_refused(with(good, LinuxAt::kSetupSectors, std::uint8_t{0}), "truncated");
    check_refused(with(good, LinuxAt::kSetupSectors, std::uint8_t{255}), "truncated");
    check_refused(with(good, LinuxAt::kSystemSize, ~std::uint32_t{0}), "truncated");
    check_refused(with(good, LinuxAt::kSystemSize, std::uint32_t{LinuxAt::kKernelBytes / 16 + 3}),
                  "truncated");
    check_refused(with(good, LinuxAt::kAlignment, std::uint32_t{0}), "not a power of two");
    check_refused(with(good, LinuxAt::kAlignment, std::uint32_t{0x201000}), "not a power of two");
    check_refused(with(good, LinuxAt::kPreferredAddress, std::uint64_t{1} << 32), "not below 4 GiB");
    check_refused(with(good, LinuxAt::kPreferredAddress, ~std::uint64_t{0}), "not below 4 GiB");
    check_refused(with(good, LinuxAt::kPreferredAddress, std::uint64_t{0xffffffff}), "not below 4 GiB");
    check_refused(with(good, LinuxAt::kPreferredAddress, std::uint64_t{0xff000000}), "not all RAM");
    check_refused(with(good, LinuxAt::kInitSize, ~std::uint32_t{0}), "not all RAM");
    check_refused(good, "not all RAM", "", 16);
    const Bytes empty =
        with(with(good, LinuxAt::kSystemSize, std::uint32_t{0}), LinuxAt::kInitSize, std::uint32_t{0x200});
    check_refused(empty, "do not reach its entry");
    const Bytes unbounded = with(good, LinuxAt::kCommandLineSize, ~std::uint32_t{0});
    CHECK(loaded(unbounded, std::string(vmm::kMaxCommandLine, 'x')).mode == EntryMode::long64);
    check_refused(unbounded, "command line", std::string(vmm::kMaxCommandLine + 1, 'x'));
    CHECK(loaded(good, std::string(2047, 'x')).mode == EntryMode::long64);
    check_refused(good, "this kernel takes 2047", std::string(2048, 'x'));
}

TEST_CASE("every prefix of a bzImage that lacks a byte of the kernel is refused or is flat", "[loader]") {
    const Bytes good = linux_image();
    for (std::size_t size = 0; size < LinuxAt::kKernel + LinuxAt::kKernelBytes; ++size) {
        const auto image = load_image(std::span{good}.first(size), "", 64);
        INFO(size);
        REQUIRE((!image || (image->mode == EntryMode::real16 && size < 0x206)));
    }
}

TEST_CASE("a damaged bzImage never makes the loader stumble", "[loader]") {
    std::mt19937_64 random{0xb00};
    constexpr std::array<std::uint64_t, 6> kNasty{0, 1, 0x7fffffff, 0xffffffff, ~std::uint64_t{0}, 0x100000};
    std::size_t accepted = 0;
    for (int i = 0; i < 10000; ++i) {
        Bytes file = linux_image();
        for (std::uint64_t changes = 1 + random() % 3; changes > 0; --changes) {
            const std::size_t where = LinuxAt::kSetupSectors + random() % 0x80;
            if (random() % 2 == 0) {
                file[where] = static_cast<std::byte>(random());
            } else {
                patch(file, where / 4 * 4, kNasty[random() % kNasty.size()]);
            }
        }
        const auto image = load_image(file, "line", 32, Bytes(3 * 4096, std::byte{1}));
        if (image) {
            ++accepted;
            check_sound(*image, 32);
        }
    }
    CHECK(accepted > 0);
}
