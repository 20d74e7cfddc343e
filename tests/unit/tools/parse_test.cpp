#include "tools/vmm/parse.hpp"

#include <catch2/catch.hpp>

using namespace tools;
using namespace std::chrono_literals;

TEST_CASE("sizes are powers of 1024", "[tools]") {
    CHECK(*parse_size("1") == 1);
    CHECK(*parse_size("4K") == 4096);
    CHECK(*parse_size("512M") == 512u << 20);
    CHECK(*parse_size("3G") == std::uint64_t{3} << 30);
    CHECK(*parse_size("16777215T") == std::uint64_t{16777215} << 40);
    for (const char* text : {"", "0", "0M", "M", "-1", "+1", "1.5G", " 1", "1 ", "1k", "1MB", "1KK",
                             "16777216T", "18446744073709551616", "0x10"}) {
        CAPTURE(text);
        CHECK_FALSE(parse_size(text).has_value());
    }
}

TEST_CASE("durations name their unit", "[tools]") {
    CHECK(*parse_duration("300ms") == 300ms);
    CHECK(*parse_duration("10s") == 10s);
    CHECK(*parse_duration("2m") == 2min);
    CHECK(*parse_duration("365000m") == std::chrono::minutes{365000});
    for (const char* text : {"", "300", "0ms", "ms", "1h", "1.5s", "-1s", "1S", "1 s",
                             "18446744073709551615m", "527040m", "307445734561825861m"}) {
        CAPTURE(text);
        CHECK_FALSE(parse_duration(text).has_value());
    }
}

TEST_CASE("bandwidth is bytes unless it ends in bit, and then decimal", "[tools]") {
    CHECK(*parse_bandwidth("1000") == 1000);
    CHECK(*parse_bandwidth("100M") == 100u << 20);
    CHECK(*parse_bandwidth("8bit") == 1);
    CHECK(*parse_bandwidth("500Mbit") == 62'500'000);
    CHECK(*parse_bandwidth("10Gbit") == 1'250'000'000);
    for (const char* text :
         {"", "0", "7bit", "bit", "Gbit", "10gbit", "10Gbits", "10Gb", "1Pbit", "-1M", "20000000Tbit"}) {
        CAPTURE(text);
        CHECK_FALSE(parse_bandwidth(text).has_value());
    }
}

TEST_CASE("counts have bounds", "[tools]") {
    CHECK(*parse_count("0", 0, 64) == 0);
    CHECK(*parse_count("64", 0, 64) == 64);
    for (const char* text : {"", "65", "-1", "1x", "1K", "0x1"}) {
        CAPTURE(text);
        CHECK_FALSE(parse_count(text, 0, 64).has_value());
    }
    CHECK_FALSE(parse_count("0", 1, 64).has_value());
}

TEST_CASE("memory is whole pages, and neither too little nor too much", "[tools]") {
    CHECK(*parse_memory("1M") == 1 << 20);
    CHECK(*parse_memory("1052672") == 257 * 4096);
    for (const char* bad : {"0", "1000", "4096", "1000000", "1048577", "9T", "100T", "99999999T", "x"}) {
        CAPTURE(bad);
        CHECK_FALSE(parse_memory(bad).has_value());
    }
}

TEST_CASE("a name never leads out of its directory", "[tools]") {
    for (const char* name : {"a", "hello", "web-1.example_2", "0", "x-"}) {
        CAPTURE(name);
        CHECK(is_guest_name(name));
    }
    CHECK(is_guest_name(std::string(64, 'a')));
    for (const std::string& name :
         {std::string{}, std::string{"."}, std::string{".."}, std::string{".hidden"}, std::string{"-x"},
          std::string{"a/b"}, std::string{"../x"}, std::string{"a b"}, std::string{"a\n"},
          std::string{"a\0b", 3}, std::string{"\xc3\xa4"}, std::string(65, 'a')}) {
        CAPTURE(name);
        CHECK_FALSE(is_guest_name(name));
        CHECK_FALSE(parse_guest_name(name).has_value());
    }
}

TEST_CASE("whatever a name is made from, it is one", "[tools]") {
    CHECK(guest_name_from("hello") == "hello");
    CHECK(guest_name_from("my kernel") == "my-kernel");
    for (const std::string& text : {std::string{}, std::string{"..."}, std::string{".x"},
                                    std::string(200, 'a'), std::string{"\xff\n/"}}) {
        CAPTURE(text);
        CHECK(is_guest_name(guest_name_from(text)));
    }
}
