#include <algorithm>
#include <catch2/catch.hpp>

#include "tests/unit/kvm/fake_kvm.hpp"
#include "vmm/kvm/vcpu_state.hpp"
#include "vmm/state/decode.hpp"
#include "vmm/state/describe.hpp"
#include "vmm/state/encode.hpp"

using Catch::Matchers::Contains;
using Calls = std::vector<std::string>;

namespace {

vmm::VcpuState sample(const vmm::Vcpu& vcpu) {
    auto state = vmm::save_vcpu(vcpu, {});
    REQUIRE(state);
    state->regs.rip = 0x1234;
    state->msrs = {{0x174, 7}, {0x6e0, 9}};
    return *state;
}

}  // namespace

TEST_CASE("a vCPU is saved with its MP state first and its events last", "[kvm]") {
    FakeKvm fake;
    FakeVm vm{fake};
    const auto vcpu = vm.vcpu();
    (void)fake.take_calls();
    REQUIRE(vmm::save_vcpu(*vcpu, {}));
    CHECK(fake.take_calls() == Calls{"GET_MP_STATE", "GET_REGS", "GET_SREGS2", "GET_XCRS", "GET_XSAVE2",
                                     "GET_DEBUGREGS", "GET_LAPIC", "GET_DEVICE_ATTR", "GET_MSRS",
                                     "GET_VCPU_EVENTS"});
}

TEST_CASE("a vCPU is restored with its LAPIC before its MSRs, the TSC deadline last of them, then its events",
          "[kvm]") {
    FakeKvm fake;
    FakeVm vm{fake};
    const auto vcpu = vm.vcpu();
    vmm::VcpuState state = sample(*vcpu);
    std::reverse(state.msrs.begin(), state.msrs.end());
    (void)fake.take_calls();
    REQUIRE(vmm::restore_vcpu(*vcpu, state, vmm::ClockPair{}));
    CHECK(fake.take_calls() == Calls{"SET_DEVICE_ATTR", "SET_MP_STATE", "SET_REGS", "SET_SREGS2", "SET_XCRS",
                                     "SET_XSAVE", "SET_DEBUGREGS", "SET_LAPIC", "SET_MSRS", "MSR 0x174",
                                     "MSR 0x6e0", "SET_VCPU_EVENTS"});
}

TEST_CASE("the wall clock of the VM is restored by vCPU 0 alone", "[kvm]") {
    FakeKvm fake;
    fake.known_msrs.insert({0x11, 0x4b564d00});
    fake.listed_msrs.insert(fake.listed_msrs.end(), {0x11, 0x4b564d00});
    FakeVm vm{fake};
    for (const std::uint32_t index : {0U, 1U}) {
        const auto vcpu = vm.vcpu(index);
        vmm::VcpuState state = sample(*vcpu);
        state.msrs = {{0x11, 0x1000}, {0x4b564d00, 0x2000}};
        (void)fake.take_calls();
        REQUIRE(vmm::restore_vcpu(*vcpu, state, std::nullopt));
        const Calls calls = fake.take_calls();
        CHECK(std::count(calls.begin(), calls.end(), "MSR 0x11") == (index == 0 ? 1 : 0));
        CHECK(std::count(calls.begin(), calls.end(), "MSR 0x4b564d00") == (index == 0 ? 1 : 0));
    }
}

TEST_CASE("without sregs2 and XSAVE2 the older calls are used", "[kvm]") {
    FakeKvm fake;
    fake.capabilities[KVM_CAP_SREGS2] = 0;
    fake.capabilities[KVM_CAP_XSAVE2] = 0;
    FakeVm vm{fake};
    const auto vcpu = vm.vcpu();
    (void)fake.take_calls();
    const auto state = vmm::save_vcpu(*vcpu, {});
    REQUIRE(state);
    const Calls calls = fake.take_calls();
    CHECK(std::count(calls.begin(), calls.end(), "GET_SREGS") == 1);
    CHECK(std::count(calls.begin(), calls.end(), "GET_XSAVE") == 1);
    CHECK_FALSE(state->has_sregs2);
    vmm::VcpuState newer = *state;
    newer.has_sregs2 = true;
    CHECK_THAT(vmm::restore_vcpu(*vcpu, newer, std::nullopt).error().text(), Contains("SREGS2"));
}

TEST_CASE("a reset leaves the TSC alone", "[kvm]") {
    FakeKvm fake;
    fake.tsc_offset = GENERATE(true, false);
    FakeVm vm{fake};
    const auto vcpu = vm.vcpu();
    const vmm::VcpuState state = sample(*vcpu);
    (void)fake.take_calls();
    REQUIRE(vmm::restore_vcpu(*vcpu, state, std::nullopt));
    const Calls calls = fake.take_calls();
    CHECK(std::count(calls.begin(), calls.end(), "SET_DEVICE_ATTR") == 0);
    CHECK(std::count(calls.begin(), calls.end(), "MSR 0x10") == 0);
}

TEST_CASE("the TSC has one authority: its offset where offered, else the MSR, before everything else",
          "[kvm]") {
    FakeKvm fake;
    fake.tsc_offset = GENERATE(true, false);
    FakeVm vm{fake};
    const auto vcpu = vm.vcpu();
    vmm::VcpuState state = sample(*vcpu);
    state.tsc = 1'000'000'000;
    vmm::ClockPair clocks;
    clocks.saved.kvmclock_ns = 5'000'000;
    clocks.now.state.kvmclock_ns = 6'000'000;  // 1 ms later, at 2 GHz: 2,000,000 ticks
    clocks.now.host_tsc = vmm::host_tsc();
    (void)fake.take_calls();
    REQUIRE(vmm::restore_vcpu(*vcpu, state, clocks));
    const Calls calls = fake.take_calls();
    CHECK(calls.front() == (fake.tsc_offset ? "SET_DEVICE_ATTR" : "SET_MSRS"));
    CHECK(std::count(calls.begin(), calls.end(), "MSR 0x10") == (fake.tsc_offset ? 0 : 1));
    if (!fake.tsc_offset) {
        CHECK(fake.msrs[0x10] >= 1'002'000'000);
        return;
    }
    const auto again = vmm::save_vcpu(*vcpu, clocks.now);
    REQUIRE(again);
    CHECK(again->tsc == 1'002'000'000);
}

TEST_CASE("an MSR that the host does not take is named", "[kvm]") {
    FakeKvm fake;
    FakeVm vm{fake};
    const auto vcpu = vm.vcpu();
    vmm::VcpuState state = sample(*vcpu);
    SECTION("unknown here") {
        state.msrs.push_back({0xc0000103, 5});
        CHECK_THAT(vmm::restore_vcpu(*vcpu, state, std::nullopt).error().text(), Contains("MSR 0xc0000103"));
    }
    SECTION("value refused") {
        fake.read_only_msrs.insert(0x174);
        CHECK_THAT(vmm::restore_vcpu(*vcpu, state, std::nullopt).error().text(),
                   Contains("0x7 for MSR 0x174"));
    }
    SECTION("unknown here, but zero") {
        state.msrs.push_back({0xc0000103, 0});
        CHECK(vmm::restore_vcpu(*vcpu, state, std::nullopt));
    }
}

TEST_CASE("readable MSRs are the listed and the unlisted ones that can be read", "[kvm]") {
    FakeKvm fake;
    for (std::uint32_t i = 0; i < 600; ++i) {  // more than one batch
        fake.listed_msrs.push_back(0xc001'0000 + i);
        fake.known_msrs.insert(0xc001'0000 + i);
    }
    fake.known_msrs.erase(0xc001'0000 + 300);
    FakeVm vm{fake};
    const auto vcpu = vm.vcpu();
    CHECK(std::vector<std::uint32_t>(vcpu->msrs().begin(), vcpu->msrs().end()) ==
          std::vector<std::uint32_t>(fake.known_msrs.begin(), fake.known_msrs.end()));
    CHECK(vmm::save_vcpu(*vcpu, {})->msrs.size() == fake.known_msrs.size() - 1);
}

TEST_CASE("MSRs of features that no guest is offered are not its state, although KVM lists them", "[kvm]") {
    // HV_X64_MSR_VP_RUNTIME, IA32_VMX_BASIC, IA32_VMX_EXIT_CTLS2, IA32_PERF_CAPABILITIES
    const std::uint32_t index = GENERATE(0x4000'0010U, 0x480U, 0x493U, 0x345U);
    FakeKvm fake;
    fake.listed_msrs.push_back(index);
    fake.known_msrs.insert(index);
    FakeVm vm{fake};
    const auto vcpu = vm.vcpu();
    CHECK(std::count(vcpu->msrs().begin(), vcpu->msrs().end(), index) == 0);
}

TEST_CASE("XSAVE data that this host has no room for is an error, empty room is not", "[kvm]") {
    FakeKvm fake;
    FakeVm vm{fake};
    const auto vcpu = vm.vcpu();
    vmm::VcpuState state = sample(*vcpu);
    state.xsave.resize(8192);
    CHECK(vmm::restore_vcpu(*vcpu, state, std::nullopt));
    state.xsave[5000] = std::byte{1};
    CHECK_THAT(vmm::restore_vcpu(*vcpu, state, std::nullopt).error().text(), Contains("5000"));
    state.xsave.resize(576);
    CHECK(vmm::restore_vcpu(*vcpu, state, std::nullopt));
}

TEST_CASE("save, restore, save gives the same state except the named list", "[kvm]") {
    FakeKvm fake;
    FakeVm vm{fake};
    const auto vcpu = vm.vcpu();
    vmm::VcpuState state = sample(*vcpu);
    REQUIRE(vmm::restore_vcpu(*vcpu, state, vmm::ClockPair{}));
    auto saved = vmm::save_vcpu(*vcpu, {});
    REQUIRE(saved);
    const auto decoded = vmm::decode<vmm::VcpuState>(vmm::encode(*saved), vmm::VcpuState::id.current);
    REQUIRE(decoded);
    REQUIRE(vmm::restore_vcpu(*vcpu, *decoded, vmm::ClockPair{}));
    auto again = vmm::save_vcpu(*vcpu, {});
    REQUIRE(again);
    vmm::normalise_for_comparison(*saved);
    vmm::normalise_for_comparison(*again);
    CHECK(vmm::first_difference(*saved, *again) == "");
    CHECK(again->regs.rip == 0x1234);
    CHECK(again->tsc == 0);
    CHECK(again->msrs.back() == vmm::MsrValue{0x6e0, 0});
}

TEST_CASE("non-zero MSRs", "[kvm]") {
    const std::vector<vmm::MsrValue> values{{1, 0}, {2, 5}, {3, 0}, {4, 1}};
    CHECK(vmm::nonzero_msrs(values) == std::vector<std::uint32_t>{2, 4});
}
