#include "vmm/kvm/guest_clock.hpp"

#include <catch2/catch.hpp>

#include "tests/unit/kvm/fake_kvm.hpp"

namespace {

class FixedClock final : public vmm::Clock {
  public:
    vmm::TimePoint now() const override { return {}; }
    std::int64_t realtime_ns() const override { return realtime; }
    std::int64_t realtime = 1'000;
};

}  // namespace

TEST_CASE("a TSC keeps its distance to kvmclock", "[kvm]") {
    CHECK(vmm::advance_tsc(100, 2'000'000, 50, 1'000'050) == 2'000'100);
    CHECK(vmm::advance_tsc(2'000'100, 2'000'000, 1'000'050, 50) == 100);
    // A week at 4 GHz does not overflow on the way.
    CHECK(vmm::advance_tsc(0, 4'000'000, 0, 604'800'000'000'000) == 2'419'200'000'000'000);
}

TEST_CASE("the TSC is scaled only where KVM scales", "[kvm]") {
    CHECK(vmm::unoffset_tsc(1'000'000, 1'000'000, 2'000'000, 48) == 500'000);
    CHECK(vmm::unoffset_tsc(1'000'000, 1'000'000, 2'000'000, 0) == 1'000'000);
    CHECK(vmm::unoffset_tsc(1'000'000, 2'000'499, 2'000'000, 48) == 1'000'000);
    CHECK(vmm::tsc_frequencies_agree(2'000'500, 2'000'000));
    CHECK_FALSE(vmm::tsc_frequencies_agree(2'000'501, 2'000'000));
}

TEST_CASE("the TSC is scaled by the ratio that KVM has, which is cut off", "[kvm]") {
    constexpr std::uint64_t kTicks = 3'000'000'000'000'000;  // 11 days at 3 GHz
    // 2/3 of them are 2e15. The ratio falls short of 2/3 by 2/3 of its last bit.
    CHECK(vmm::unoffset_tsc(kTicks, 2'000'000, 3'000'000, 48) == 1'999'999'999'999'992);
    CHECK(vmm::unoffset_tsc(kTicks, 2'000'000, 3'000'000, 32) == 1'999'999'999'534'338);
    const unsigned bits = vmm::host_tsc_ratio_bits();
    CHECK((bits == 32 || bits == 48));
}

TEST_CASE("kvmclock goes on by the time since, however that is known", "[kvm]") {
    FakeKvm fake;
    FixedClock clock;
    const vmm::ClockState saved{10'000, 400};
    kvm_clock_data given{};
    SECTION("KVM knows") {
        FakeVm vm{fake};
        REQUIRE(vmm::restore_clock(*vm.vm, saved, std::nullopt, clock));
        REQUIRE(vm.vm->fd().call_with(KVM_REQUEST(KVM_GET_CLOCK), given));
        CHECK(given.flags == KVM_CLOCK_REALTIME);
        CHECK(given.realtime == 400);
        CHECK(given.clock == 10'000);
    }
    SECTION("we compare the hosts' clocks") {
        fake.capabilities[KVM_CAP_ADJUST_CLOCK] = 1;
        FakeVm vm{fake};
        REQUIRE(vmm::restore_clock(*vm.vm, saved, std::nullopt, clock));
        REQUIRE(vm.vm->fd().call_with(KVM_REQUEST(KVM_GET_CLOCK), given));
        CHECK(given.flags == 0);
        CHECK(given.clock == 10'600);
    }
    SECTION("never backwards") {
        fake.capabilities[KVM_CAP_ADJUST_CLOCK] = 1;
        clock.realtime = 100;
        FakeVm vm{fake};
        const auto reading = vmm::restore_clock(*vm.vm, saved, std::nullopt, clock);
        REQUIRE(reading);
        CHECK(reading->state.kvmclock_ns == 10'000);
        CHECK(reading->state.realtime_ns == 100);
    }
    SECTION("the caller knows") {
        FakeVm vm{fake};
        REQUIRE(vmm::restore_clock(*vm.vm, saved, vmm::Duration{77}, clock));
        REQUIRE(vm.vm->fd().call_with(KVM_REQUEST(KVM_GET_CLOCK), given));
        CHECK(given.flags == 0);
        CHECK(given.clock == 10'077);
    }
}
