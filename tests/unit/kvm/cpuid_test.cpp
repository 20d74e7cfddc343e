#include "vmm/kvm/cpuid.hpp"

#include <catch2/catch.hpp>

#include "vmm/kvm/cpuid_compare.hpp"

using vmm::CpuidRegister;
using vmm::CpuidTable;

namespace {

// Intel-like: AVX-512, AMX, VMX, PMU.
CpuidTable host() {
    CpuidTable table;
    table.entries = {
        {0x0, 0, 0, 0x1f, 0x756e6547, 0x6c65746e, 0x49656e69},
        {0x1, 0, 0, 0x806f8, 0x0b400800, (1U << 5) | (1U << 15) | 1, 0x0fabfbff},
        {0x4, 3, 1, 0xfc1fc163, 0, 0, 0},
        {0x7, 0, 1, 2, 1U << 16, 0, (1U << 24) | (1U << 26)},
        {0xa, 0, 0, 0x08300805, 0, 0, 0x8603},
        {0xb, 0, 1, 1, 2, 0x100, 0x0b},
        {0xb, 1, 1, 6, 48, 0x201, 0x0b},
        {0xd, 0, 1, 0x602e7, 0, 11008, 0},
        {0xd, 5, 1, 64, 1088, 0, 0},
        {0xd, 17, 1, 64, 2752, 2, 0},
        {0xd, 18, 1, 8192, 2816, 6, 0},
        {0x80000001, 0, 0, 0, 0, 0x21, 0x2c100800},
        {0x80000008, 0, 0, 0x3034, 0, 0, 0},
    };
    return table;
}

}  // namespace

TEST_CASE("a guest gets no feature whose state does not travel", "[kvm]") {
    const CpuidTable guest = vmm::make_guest_cpuid(host(), 4, true);
    CHECK((guest.find(0x1)->ecx & ((1U << 5) | (1U << 15))) == 0);
    CHECK((guest.find(0x1)->ecx & ((1U << 31) | (1U << 21) | (1U << 24))) ==
          ((1U << 31) | (1U << 21) | (1U << 24)));
    CHECK(guest.find(0xa)->eax == 0);
    CHECK((guest.find(0x7)->edx & (1U << 24)) == 0);
    CHECK((guest.find(0x7)->edx & (1U << 26)) != 0);
    CHECK((guest.find(0xd)->eax & 0x60000) == 0);
    CHECK(guest.find(0xd, 18)->eax == 0);
    CHECK(guest.find(0xd)->ecx == 1088 + 64);
    CHECK((vmm::make_guest_cpuid(host(), 4, false).find(0x1)->ecx & (1U << 24)) == 0);
}

TEST_CASE("a guest gets no CET, and no component of the XSAVE area that is not known to travel", "[kvm]") {
    CpuidTable newer = host();
    newer.find(0x7)->ecx = (1U << 7) | (1U << 8);  // and GFNI
    newer.find(0x7)->edx |= 1U << 20;
    newer.find(0xd)->eax |= 1U << 19;
    newer.find(0xd)->edx = 1U << 30;
    newer.entries.push_back({0xd, 1, 1, 0xf, 0, (1U << 11) | (1U << 12), 0});
    newer.entries.push_back({0xd, 11, 1, 16, 0, 1, 0});
    newer.entries.push_back({0xd, 19, 1, 128, 960, 0, 0});
    const CpuidTable guest = vmm::make_guest_cpuid(newer, 1, true);
    CHECK(guest.find(0x7)->ecx == 1U << 8);
    CHECK(guest.find(0x7)->edx == 1U << 26);
    CHECK(guest.find(0xd)->eax == 0x2e7);
    CHECK(guest.find(0xd)->edx == 0);
    CHECK(guest.find(0xd, 1)->eax == 0xf);
    CHECK(guest.find(0xd, 1)->ecx == 0);
    CHECK(guest.find(0xd, 11)->eax == 0);
    CHECK(guest.find(0xd, 19)->eax == 0);
    CHECK(vmm::cpuid_missing_on(guest, vmm::withhold_cpuid(newer)).empty());
}

TEST_CASE("the brand is the same on every host", "[kvm]") {
    CpuidTable named = host();
    CHECK(vmm::make_guest_cpuid(named, 1, true).find(0x80000002) == nullptr);  // there are no such leaves
    named.entries.push_back({0x80000000, 0, 0, 0x80000021, 0, 0, 0});
    named.entries.push_back({0x80000003, 0, 0, 1, 2, 3, 4});
    const CpuidTable guest = vmm::make_guest_cpuid(named, 1, true);
    CHECK(guest.find(0x80000002)->eax == 0x204d564b);  // "KVM "
    CHECK(guest.find(0x80000003)->eax == 0);
    CHECK(guest.find(0x80000004)->edx == 0);
}

TEST_CASE("the topology is one package of single-threaded cores", "[kvm]") {
    const CpuidTable guest = vmm::make_guest_cpuid(host(), 5, true);
    CHECK(((guest.find(0x1)->ebx >> 16) & 0xff) == 5);
    CHECK((guest.find(0x1)->edx & (1U << 28)) != 0);
    CHECK(((guest.find(0x4, 3)->eax >> 14) & 0xfff) == 4);
    CHECK((guest.find(0x4, 3)->eax >> 26) == 4);
    CHECK(guest.find(0xb, 1)->eax == 3);  // 5 ids need 3 bits
    CHECK(guest.find(0xb, 1)->ebx == 5);
    CHECK((vmm::make_guest_cpuid(host(), 1, true).find(0x1)->edx & (1U << 28)) == 0);
}

TEST_CASE("only APIC ids differ between vCPUs, and the host's own are gone", "[kvm]") {
    const CpuidTable guest = vmm::make_guest_cpuid(host(), 4, true);
    CHECK((guest.find(0x1)->ebx >> 24) == 0);
    const CpuidTable third = vmm::cpuid_for_vcpu(guest, 3);
    CHECK((third.find(0x1)->ebx >> 24) == 3);
    CHECK(third.find(0xb, 0)->edx == 3);
    CHECK(third.find(0xb, 1)->edx == 3);
    CHECK(vmm::cpuid_for_vcpu(third, 0) == guest);
}

TEST_CASE("a guest made on a host fits that host, whatever its topology", "[kvm]") {
    CHECK(vmm::cpuid_missing_on(vmm::make_guest_cpuid(host(), 4, true), host()).empty());
}

TEST_CASE("a missing feature is named", "[kvm]") {
    CpuidTable lesser = host();
    const auto mask = vmm::parse_cpuid_mask("0x7:ebx=0x10000");
    REQUIRE(mask);
    vmm::apply(*mask, lesser);
    CHECK(vmm::cpuid_missing_on(vmm::make_guest_cpuid(host(), 1, true), lesser) ==
          std::vector<std::string>{"leaf 0x7 ebx bit 16 (avx512f) is not offered by the destination"});
    CHECK(vmm::cpuid_missing_on(vmm::make_guest_cpuid(lesser, 1, true), host()).empty());
}

TEST_CASE("another vendor, layout or address width is a difference", "[kvm]") {
    const CpuidTable guest = vmm::make_guest_cpuid(host(), 1, true);
    CpuidTable other = host();
    SECTION("vendor") {
        *other.find(0x0) = {0, 0, 0, 0x10, 0x68747541, 0x444d4163, 0x69746e65};
        CHECK(vmm::cpuid_missing_on(guest, other) ==
              std::vector<std::string>{
                  "the guest's CPU is of GenuineIntel, the destination's of AuthenticAMD"});
    }
    SECTION("XSAVE layout") {
        other.find(0xd, 5)->ebx = 832;
        CHECK(vmm::cpuid_missing_on(guest, other).size() == 1);
    }
    SECTION("addresses") {
        other.find(0x80000008)->eax = 0x302e;
        CHECK(vmm::cpuid_missing_on(guest, other).at(0) ==
              "the guest has physical addresses of 52 bits, the destination of 46");
    }
    SECTION("family, model and stepping are not compared") {
        other.find(0x1)->eax = 0x306c3;
        CHECK(vmm::cpuid_missing_on(guest, other).empty());
    }
}

TEST_CASE("CPUID masks are parsed strictly", "[kvm]") {
    const auto mask = vmm::parse_cpuid_mask("7.1:eax=0x20");
    REQUIRE(mask);
    CHECK(mask->leaf == 7);
    CHECK(mask->subleaf == 1);
    CHECK(mask->reg == CpuidRegister::eax);
    CHECK(mask->bits == 0x20);
    for (const char* bad : {"", "7", "7:eax", "7=1:eax", ":eax=1", "7:rax=1", "7:eax=", "7:eax=0x",
                            "7:eax=-1", "7:eax=1 ", "0x100000000:eax=1", "7.:eax=1"}) {
        INFO(bad);
        CHECK_FALSE(vmm::parse_cpuid_mask(bad));
    }
}
