#include <algorithm>
#include <catch2/catch.hpp>

#include "tests/unit/kvm/fake_kvm.hpp"
#include "vmm/kvm/vm_state.hpp"

using Catch::Matchers::Contains;

namespace {

std::ptrdiff_t position(const std::vector<std::string>& calls, const std::string& name) {
    const auto found = std::find(calls.begin(), calls.end(), name);
    REQUIRE(found != calls.end());
    return found - calls.begin();
}

}  // namespace

TEST_CASE("an unusable /dev/kvm is explained", "[kvm]") {
    FakeKvm fake;
    SECTION("missing") {
        fake.open_errno = ENOENT;
        const auto kvm = vmm::Kvm::open(fake);
        REQUIRE_FALSE(kvm);
        CHECK_THAT(kvm.error().text(),
                   Contains("/dev/kvm") && Contains("kvm_intel") && Contains("No such file"));
        CHECK(kvm.error().sys_errno() == ENOENT);
    }
    SECTION("forbidden") {
        fake.open_errno = EACCES;
        CHECK_THAT(vmm::Kvm::open(fake).error().text(), Contains("join the group"));
    }
    SECTION("another API") {
        fake.api_version = 13;
        CHECK_THAT(vmm::Kvm::open(fake).error().text(), Contains("API version 13"));
    }
    SECTION("a capability is missing") {
        fake.capabilities[KVM_CAP_IMMEDIATE_EXIT] = 0;
        CHECK_THAT(vmm::Kvm::open(fake).error().text(), Contains("KVM_CAP_IMMEDIATE_EXIT"));
    }
}

TEST_CASE("the report says what is missing", "[kvm]") {
    FakeKvm fake;
    fake.capabilities[KVM_CAP_SREGS2] = 0;
    const auto kvm = vmm::Kvm::open(fake);
    REQUIRE(kvm);
    CHECK_THAT(kvm->capabilities().report(), Contains("missing: sregs2, TSC scaling"));
}

TEST_CASE("a VM is set up before its first vCPU, task segment and identity map included", "[kvm]") {
    FakeKvm fake;
    FakeVm vm{fake};
    const auto vcpu = vm.vcpu();
    const std::vector<std::string> calls = fake.take_calls();
    const auto first_vcpu = position(calls, "CREATE_VCPU");
    for (const char* before : {"ENABLE_CAP", "SET_TSS_ADDR", "SET_IDENTITY_MAP_ADDR", "CREATE_IRQCHIP",
                               "CREATE_PIT2", "SET_GSI_ROUTING", "SET_USER_MEMORY_REGION"}) {
        INFO(before);
        CHECK(position(calls, before) < first_vcpu);
    }
    CHECK(position(calls, "CREATE_IRQCHIP") < position(calls, "CREATE_PIT2"));
    CHECK(position(calls, "SET_CPUID2") == first_vcpu + 1);
}

TEST_CASE("capabilities are enabled where offered and left alone elsewhere", "[kvm]") {
    FakeKvm fake;
    SECTION("offered") {
        FakeVm vm{fake};
        CHECK(fake.enabled.size() == 3);
        CHECK(fake.manual_flags == (KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET));
    }
    SECTION("not offered") {
        fake.capabilities[KVM_CAP_EXCEPTION_PAYLOAD] = 0;
        fake.capabilities[KVM_CAP_X86_TRIPLE_FAULT_EVENT] = 0;
        fake.capabilities[KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2] = 0;
        FakeVm vm{fake};
        CHECK(fake.enabled.empty());
    }
}

TEST_CASE("GSI 0 is pin 2 of the IOAPIC, and nothing else is", "[kvm]") {
    FakeKvm fake;
    FakeVm vm{fake};
    std::map<std::uint32_t, std::uint32_t> ioapic_pin;
    std::map<std::uint32_t, int> targets;
    for (const kvm_irq_routing_entry& entry : fake.routing) {
        ++targets[entry.gsi];
        if (entry.u.irqchip.irqchip == KVM_IRQCHIP_IOAPIC) {
            ioapic_pin[entry.gsi] = entry.u.irqchip.pin;
        }
    }
    CHECK(ioapic_pin[0] == 2);
    CHECK(ioapic_pin.count(2) == 0);
    CHECK(ioapic_pin[4] == 4);
    CHECK(ioapic_pin[23] == 23);
    CHECK(targets[4] == 2);
    CHECK(targets[16] == 1);
}

TEST_CASE("an interrupt line sets its own GSI", "[kvm]") {
    FakeKvm fake;
    FakeVm vm{fake};
    vm.vm->interrupt(4).set(true);
    vm.vm->interrupt(4).set(false);
    vm.vm->interrupt(23).set(true);
    CHECK(fake.irq_levels == std::vector<std::uint32_t>{9, 8, 47});
}

TEST_CASE("interrupt controllers come back as they were, the timer last", "[kvm]") {
    FakeKvm fake;
    FakeVm vm{fake};
    vmm::IrqchipState state;
    state.pic_slave.chip_id = KVM_IRQCHIP_PIC_SLAVE;
    state.ioapic.chip_id = KVM_IRQCHIP_IOAPIC;
    state.pic_slave.chip.pic.imr = 0x55;
    state.ioapic.chip.ioapic.id = 3;
    state.pit.channels[0].count = 1193;
    state.pit.channels[0].count_load_time = 77;
    (void)fake.take_calls();
    REQUIRE(vmm::restore_irqchips(*vm.vm, state));
    CHECK(fake.take_calls() ==
          std::vector<std::string>{"SET_IRQCHIP", "SET_IRQCHIP", "SET_IRQCHIP", "SET_PIT2"});
    auto again = vmm::save_irqchips(*vm.vm);
    REQUIRE(again);
    CHECK(again->pic_slave.chip.pic.imr == 0x55);
    CHECK(again->ioapic.chip.ioapic.id == 3);
    vmm::normalise_for_comparison(*again);
    CHECK(again->pit.channels[0].count == 1193);
    CHECK(again->pit.channels[0].count_load_time == 0);
}
