#include "vmm/kvm/compatibility.hpp"

#include <catch2/catch.hpp>

#include "tests/unit/kvm/fake_kvm.hpp"

TEST_CASE("a host that offers everything is fine; each thing it lacks is a line of its own", "[kvm]") {
    FakeKvm fake;
    const auto kvm = vmm::Kvm::open(fake);
    REQUIRE(kvm);
    const auto offered = vmm::probe_host(*kvm);
    REQUIRE(offered);
    vmm::HostOffer offer = *offered;
    CHECK(offer.msrs == std::vector<std::uint32_t>{0x10, 0x174, 0x2ff, 0x6e0});
    CHECK(offer.tsc_khz == 2'000'000);

    vmm::CpuNeeds needs;
    needs.cpuid = vmm::make_guest_cpuid(offer.cpuid, 2, true);
    needs.vcpus = 2;
    needs.tsc_khz = 2'000'000;
    needs.sregs2 = needs.exception_payload = needs.triple_fault_event = true;
    needs.msrs = {0x174};
    CHECK(vmm::missing_on(needs, offer).empty());

    needs.vcpus = 9;
    needs.tsc_khz = 3'000'000;
    needs.msrs.push_back(0xda0);
    offer.capabilities.sregs2 = false;
    offer.capabilities.exception_payload = false;
    offer.capabilities.triple_fault_event = false;
    offer.capabilities.tsc_deadline = false;
    CHECK(vmm::missing_on(needs, offer).size() == 7);
    offer.capabilities.tsc_scaling = true;
    CHECK(vmm::missing_on(needs, offer).size() == 6);
}

TEST_CASE("a guest with a feature whose state does not travel is refused, although the host has it",
          "[kvm]") {
    FakeKvm fake;
    fake.cpuid[1].ecx |= 1U << 5;
    fake.cpuid.push_back({0xa, 0, 0, 0x08300805, 0, 0, 0, {}});
    const auto kvm = vmm::Kvm::open(fake);
    REQUIRE(kvm);
    const auto offer = vmm::probe_host(*kvm);
    REQUIRE(offer);
    vmm::CpuNeeds needs;
    needs.tsc_khz = offer->tsc_khz;
    needs.cpuid = *kvm->supported_cpuid();
    CHECK(vmm::missing_on(needs, *offer) ==
          std::vector<std::string>{"leaf 0x1 ecx bit 5 (vmx) is not offered by the destination",
                                   "leaf 0xa.0 describes a feature whose state does not travel"});
}
