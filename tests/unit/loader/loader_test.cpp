#include "vmm/machine/loader.hpp"

#include <catch2/catch.hpp>
#include <random>

#include "tests/unit/loader/images.hpp"
#include "tests/unit/loader/loading.hpp"

using namespace tests;
using vmm::BootImage;
using vmm::BootSegment;
using vmm::Bytes;
using vmm::EntryMode;

TEST_CASE("a PVH image starts at its note with the start information in EBX", "[loader]") {
    const BootImage image = loaded(pvh_image(), "key=value second", 5 * 1024);
    CHECK(image.mode == EntryMode::protected32);
    CHECK(image.entry == PvhAt::kAddress + 4);
    REQUIRE(image.segments.size() == 4);
    CHECK(image.segments[0].gpa == PvhAt::kAddress);
    CHECK(image.segments[0].data.size() == PvhAt::kCodeBytes);
    CHECK(image.segments[0].data[1] == std::byte{0xc1});
    CHECK(image.segments[0].zero_bytes == PvhAt::kMemoryBytes - PvhAt::kCodeBytes);

    const BootSegment& info = image.segments[1];
    CHECK(info.gpa == image.rbx);
    CHECK(info.gpa + info.data.size() <= 0x9fc00);
    CHECK(at<std::uint32_t>(info, info.gpa) == 0x336ec578);
    CHECK(at<std::uint32_t>(info, info.gpa + 4) == 1);
    CHECK(at<std::uint32_t>(info, info.gpa + 12) == 0);
    CHECK(at<std::uint64_t>(info, info.gpa + 32) == 0xe0000);
    CHECK(text_at(info, at<std::uint64_t>(info, info.gpa + 24)) == "key=value second");
    const auto map = at<std::uint64_t>(info, info.gpa + 40);
    const std::vector<std::array<std::uint64_t, 3>> expected{
        {0, 0x9fc00, 1}, {0x9fc00, 0x60400, 2}, {0x100000, 0xbff00000, 1}, {0x100000000, 0x80000000, 1}};
    REQUIRE(at<std::uint32_t>(info, info.gpa + 48) == expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
        CHECK(at<std::uint64_t>(info, map + i * 24) == expected[i][0]);
        CHECK(at<std::uint64_t>(info, map + i * 24 + 8) == expected[i][1]);
        CHECK(at<std::uint32_t>(info, map + i * 24 + 16) == expected[i][2]);
    }
    check_sound(image, 5 * 1024);
}

TEST_CASE("an ELF32 image with a 4-byte PVH note", "[loader]") {
    Bytes file = multiboot_elf();
    const auto notes = static_cast<std::uint32_t>(file.size());
    vmm::ByteWriter out{file};
    Bytes entry(4);
    patch(entry, 0, std::uint32_t{0x100008});
    put_note(out, std::string_view{"Xen\0", 4}, 18, entry);
    // The program header table moves to the end, where there is room for two.
    const auto table = static_cast<std::uint32_t>(file.size());
    const Bytes load{file.begin() + MultibootAt::kLoad, file.begin() + MultibootAt::kHeader};
    out.put(load);
    Bytes note(32);
    patch(note, 0, std::uint32_t{4});
    patch(note, 4, notes);
    patch(note, 16, table - notes);
    out.put(note);
    patch(file, 28, table);
    patch(file, 44, std::uint16_t{2});
    const BootImage image = loaded(file);
    CHECK(image.entry == 0x100008);
    CHECK(image.rax == 0);  // PVH goes before multiboot
}

TEST_CASE("the start information avoids segments in low memory", "[loader]") {
    Bytes file = pvh_image();
    patch(file, PvhAt::kLoad + 24, std::uint64_t{0x9e000});     // physical address
    patch(file, PvhAt::kLoad + 40, std::uint64_t{0x1c00});      // up to 0x9fc00
    patch(file, PvhAt::kXenNote + 16, std::uint64_t{0x9e000});  // entry
    const BootImage image = loaded(file);
    CHECK(image.segments[1].gpa + image.segments[1].data.size() <= 0x9e000);
    patch(file, PvhAt::kLoad + 24, std::uint64_t{0x1000});
    patch(file, PvhAt::kLoad + 40, std::uint64_t{0x9ec00});
    patch(file, PvhAt::kXenNote + 16, std::uint64_t{0x1000});
    check_refused(file, "no room");
}

TEST_CASE("each defect of a PVH image has its own refusal", "[loader]") {
    const Bytes good = pvh_image();
    check_refused(with(good, 4, std::uint8_t{3}), "not a little-endian");
    check_refused(with(good, 5, std::uint8_t{2}), "not a little-endian");
    check_refused(with(good, 16, std::uint16_t{3}), "type 3 is not an executable");
    check_refused(with(good, 18, std::uint16_t{183}), "machine 183");
    check_refused(with(good, 32, std::uint64_t{1} << 63), "outside the file");
    check_refused(with(good, 32, ~std::uint64_t{0}), "outside the file");
    check_refused(with(good, 54, std::uint16_t{32}), "program headers");
    check_refused(with(good, 56, std::uint16_t{0}), "program headers");
    check_refused(with(good, 56, std::uint16_t{0xffff}), "program headers");
    check_refused(with(good, 56, std::uint16_t{128}), "truncated");
    check_refused(with(good, PvhAt::kLoad, std::uint32_t{0}), "nothing to load");
    check_refused(with(good, PvhAt::kLoad + 8, std::uint64_t{good.size()}), "outside the file");
    check_refused(with(good, PvhAt::kLoad + 8, ~std::uint64_t{0}), "outside the file");
    check_refused(with(good, PvhAt::kLoad + 32, ~std::uint64_t{0}), "outside the file");
    check_refused(with(good, PvhAt::kLoad + 40, std::uint64_t{15}), "do not fit");
    check_refused(with(good, PvhAt::kLoad + 40, ~std::uint64_t{0}), "not all RAM");
    check_refused(with(good, PvhAt::kLoad + 40, std::uint64_t{64} << 20), "not all RAM");
    check_refused(with(good, PvhAt::kLoad + 24, std::uint64_t{0xa0000}), "not all RAM");
    check_refused(with(good, PvhAt::kLoad + 24, std::uint64_t{64} << 20), "not all RAM");
    check_refused(with(good, PvhAt::kLoad + 24, ~std::uint64_t{0xfff}), "not all RAM");
    check_refused(with(good, PvhAt::kNote, std::uint32_t{6}), "without a PVH entry note");
    check_refused(with(good, PvhAt::kXenNote, std::uint32_t{0xffffffff}), "a note is truncated");
    check_refused(with(good, PvhAt::kXenNote + 4, std::uint32_t{0xffffffff}), "a note is truncated");
    check_refused(with(good, PvhAt::kXenNote + 4, std::uint32_t{7}), "7 bytes instead of 4 or 8");
    check_refused(with(good, PvhAt::kXenNote + 8, std::uint32_t{17}), "without a PVH entry note");
    check_refused(with(good, PvhAt::kXenNote + 16, std::uint64_t{0x200000}), "in no segment");
    check_refused(with(good, PvhAt::kXenNote + 16, ~std::uint64_t{0}), "in no segment");
    check_refused(good, "not all RAM", "", 1);
}

TEST_CASE("segments of an ELF file share neither memory nor file bytes", "[loader]") {
    Bytes file = pvh_image();
    const Bytes load{file.begin() + PvhAt::kLoad, file.begin() + PvhAt::kNote};
    const Bytes note{file.begin() + PvhAt::kNote, file.begin() + PvhAt::kNotes};
    const auto table = file.size();
    vmm::ByteWriter out{file};
    Bytes second = load;
    out.put(load);
    out.put(note);
    out.put(second);
    patch(file, 32, std::uint64_t{table});
    patch(file, 56, std::uint16_t{3});
    check_refused(file, "overlap");
    const std::size_t third = table + 112;
    patch(file, third + 24, std::uint64_t{0x400000});
    CHECK(loaded(file).segments.size() == 5);
    patch(file, third + 8, std::uint64_t{0});
    patch(file, third + 32, std::uint64_t{file.size()});
    patch(file, third + 40, std::uint64_t{file.size()});
    check_refused(file, "share bytes");
}

TEST_CASE("a multiboot ELF image starts at its physical entry with the information in EBX", "[loader]") {
    const BootImage image = loaded(multiboot_elf(), "a=1", 5 * 1024);
    CHECK(image.mode == EntryMode::protected32);
    CHECK(image.rax == 0x2badb002);
    CHECK(image.entry == MultibootAt::kAddress + 12);
    REQUIRE(image.segments.size() == 4);
    const BootSegment& info = image.segments[1];
    CHECK(info.gpa == image.rbx);
    CHECK(at<std::uint32_t>(info, info.gpa) == 0x245);
    CHECK(at<std::uint32_t>(info, info.gpa + 4) == 639);
    CHECK(at<std::uint32_t>(info, info.gpa + 8) == (3U << 20) - 1024);
    CHECK(text_at(info, at<std::uint32_t>(info, info.gpa + 16)) == "a=1");
    CHECK(text_at(info, at<std::uint32_t>(info, info.gpa + 64)) == "Godwit");
    REQUIRE(at<std::uint32_t>(info, info.gpa + 44) == 4 * 24);
    const auto map = at<std::uint32_t>(info, info.gpa + 48);
    CHECK(at<std::uint32_t>(info, map) == 20);
    CHECK(at<std::uint64_t>(info, map + 72 + 4) == std::uint64_t{4} << 30);
    CHECK(at<std::uint64_t>(info, map + 72 + 12) == std::uint64_t{2} << 30);
    CHECK(at<std::uint32_t>(info, map + 72 + 20) == 1);
    check_sound(image, 5 * 1024);
}

TEST_CASE("a multiboot image with address fields", "[loader]") {
    const BootImage image = loaded(multiboot_addresses());
    CHECK(image.entry == AddressesAt::kLoad + 48);
    CHECK(image.segments[0].gpa == AddressesAt::kLoad);
    CHECK(image.segments[0].data.size() == 64);
    CHECK(image.segments[0].zero_bytes == 0x800 - 64);
    const std::size_t fields = AddressesAt::kHeader + 12;
    Bytes whole =
        with(with(multiboot_addresses(), fields + 8, std::uint32_t{0}), fields + 12, std::uint32_t{0});
    CHECK(loaded(whole).segments[0].data.size() == 100 - 16);
    CHECK(loaded(whole).segments[0].zero_bytes == 0);
}

TEST_CASE("each defect of a multiboot image has its own refusal", "[loader]") {
    check_refused(multiboot_elf(7), "requires features 0x4");
    check_refused(multiboot_elf(0x8003), "requires features 0x8000");
    CHECK(loaded(multiboot_elf(0xfffe0003)).rax == 0x2badb002);
    check_refused(with(multiboot_elf(), MultibootAt::kEntry, std::uint32_t{0x5}),
                  "entry 0x5 is in no segment");
    check_refused(with(multiboot_elf(), MultibootAt::kMachine, std::uint16_t{62}), "machine 62");
    check_refused(with(multiboot_elf(), MultibootAt::kHeader + 8, std::uint32_t{1}),
                  "without a PVH entry note");
    Bytes wide = with(pvh_image(), PvhAt::kXenNote + 8, std::uint32_t{17});
    wide.resize((wide.size() + 3) / 4 * 4);
    vmm::ByteWriter out{wide};
    put_multiboot(out, 0);
    check_refused(wide, "64-bit ELF");

    const std::size_t fields = AddressesAt::kHeader + 12;
    const Bytes good = multiboot_addresses();
    check_refused(with(good, fields, std::uint32_t{AddressesAt::kLoad - 1}), "before the start");
    check_refused(with(good, fields, std::uint32_t{AddressesAt::kLoad + 33}), "before the start");
    check_refused(with(good, fields + 8, std::uint32_t{AddressesAt::kLoad - 1}), "load_end_addr");
    check_refused(with(good, fields + 8, std::uint32_t{AddressesAt::kLoad + 85}), "load_end_addr");
    check_refused(with(good, fields + 12, std::uint32_t{AddressesAt::kLoad + 63}), "bss_end_addr");
    check_refused(with(good, fields + 12, std::uint32_t{0xffffffff}), "not all RAM");
    check_refused(with(good, fields + 16, std::uint32_t{AddressesAt::kLoad - 1}), "in no segment");
    Bytes cut = good;
    cut.resize(AddressesAt::kHeader + 31);
    check_refused(cut, "cut off");
    Bytes neither(AddressesAt::kHeader);
    vmm::ByteWriter tail{neither};
    put_multiboot(tail, 0);
    check_refused(neither, "neither ELF nor address fields");
}

TEST_CASE("a multiboot header counts only in the first 8 KiB and on a multiple of four", "[loader]") {
    const auto header_at = [](std::size_t at) {
        Bytes image(at);
        vmm::ByteWriter out{image};
        put_multiboot(out, 0);
        return load_image(image, "", 64);
    };
    CHECK_FALSE(header_at(8192 - 12));  // found, and refused for want of addresses
    CHECK(header_at(8192 - 8));         // not found: flat
    CHECK(header_at(2));
}

TEST_CASE("a flat image starts at 0:0x7c00", "[loader]") {
    const Bytes code(512, std::byte{0xf4});
    const BootImage image = loaded(code);
    CHECK(image.mode == EntryMode::real16);
    CHECK(image.entry == 0x7c00);
    REQUIRE(image.segments.size() == 3);
    CHECK(image.segments[0].gpa == 0x7c00);
    CHECK(image.segments[0].data == code);
    CHECK(loaded(Bytes(0x9fc00 - 0x7c00)).segments[0].data.size() == 0x98000);
    check_refused(Bytes(0x9fc00 - 0x7c00 + 1), "more than the");
    check_refused({}, "empty");
    check_refused(code, "takes no command line", "a=b");
    Bytes linux_image(4096);
    patch(linux_image, 0x202, std::uint32_t{0x53726448});
    check_refused(linux_image, "64-bit entry");
}

TEST_CASE("every image has ACPI tables and a reset vector where a BIOS would be", "[loader]") {
    for (const Bytes& file : {pvh_image(), multiboot_elf(), linux_image(), Bytes(512, std::byte{0xf4})}) {
        const BootImage image = loaded(file);
        const BootSegment& tables = image.segments.back();
        CHECK(tables.gpa == 0xe0000);
        CHECK(at<std::uint64_t>(tables, tables.gpa) == 0x2052545020445352);  // "RSD PTR "
        const BootSegment& vector = image.segments[image.segments.size() - 2];
        CHECK(vector.gpa == 0xffff0);
        // mov dx, 0x602; mov al, 1; out dx, al; and wait there.
        CHECK(at<std::uint64_t>(vector, vector.gpa) == 0xfeebee01b00602ba);
        CHECK(vector.data.size() == 8);
    }
}

TEST_CASE("a command line that does not fit is refused", "[loader]") {
    const std::string longest(vmm::kMaxCommandLine, 'x');
    CHECK(loaded(pvh_image(), longest).segments.size() == 4);
    CHECK(loaded(multiboot_elf(), longest).segments.size() == 4);
    check_refused(pvh_image(), "command line", longest + "x");
    check_refused(pvh_image(), "command line", std::string_view{"a\0b", 3});
}

TEST_CASE("every prefix of a good image is refused, or is an image", "[loader]") {
    for (const Bytes& good : {pvh_image(), multiboot_elf(), multiboot_addresses()}) {
        for (std::size_t size = 0; size < good.size(); ++size) {
            const Bytes prefix{good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)};
            const auto image = load_image(prefix, "", 64);
            INFO(size);
            // Less than a header is a flat image; all of the fields but not all of the padding is one too.
            if (image && image->mode != EntryMode::real16) {
                REQUIRE(good == multiboot_addresses());
                REQUIRE(size >= 80);
            }
        }
    }
    const Bytes good = pvh_image();
    for (std::size_t size = 4; size < good.size(); ++size) {
        REQUIRE_FALSE(load_image(std::span{good}.first(size), "", 64));
    }
}

TEST_CASE("a damaged image never makes the loader stumble", "[loader]") {
    std::mt19937_64 random{0x60d817};
    constexpr std::array<std::uint64_t, 6> kNasty{0, 1, 0x7fffffff, 0xffffffff, ~std::uint64_t{0}, 0x100000};
    std::size_t accepted = 0;
    for (const Bytes& good : {pvh_image(), multiboot_elf(), multiboot_addresses()}) {
        for (int i = 0; i < 5000; ++i) {
            Bytes file = good;
            for (std::uint64_t changes = 1 + random() % 3; changes > 0; --changes) {
                const std::size_t where = random() % (file.size() - 8);
                switch (random() % 3) {
                    case 0:
                        file[where] = static_cast<std::byte>(random());
                        break;
                    case 1:
                        patch(file, where / 4 * 4,
                              static_cast<std::uint32_t>(kNasty[random() % kNasty.size()]));
                        break;
                    default:
                        patch(file, where / 8 * 8, kNasty[random() % kNasty.size()]);
                        break;
                }
            }
            const auto image = load_image(file, "line", 8);
            if (image) {
                ++accepted;
                check_sound(*image, 8);
            }
        }
    }
    CHECK(accepted > 0);
}
