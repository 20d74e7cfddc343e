#include <catch2/catch.hpp>
#include <cstring>

#include "tests/unit/kvm/fake_kvm.hpp"

using Catch::Matchers::Contains;

TEST_CASE("a string access to a port is one exit with all its elements", "[kvm]") {
    FakeKvm fake;
    FakeVm vm{fake};
    const auto vcpu = vm.vcpu();
    fake.on_run = [](kvm_run& run) {
        run.exit_reason = KVM_EXIT_IO;
        run.io.direction = KVM_EXIT_IO_OUT;
        run.io.size = 2;
        run.io.count = 3;
        run.io.port = 0x3f8;
        run.io.data_offset = 4096;
        std::memcpy(reinterpret_cast<char*>(&run) + 4096, "abcdef", 6);
        return 0;
    };
    const auto exit = vcpu->run();
    REQUIRE(exit);
    const auto* pio = std::get_if<vmm::PioExit>(&*exit);
    REQUIRE(pio != nullptr);
    CHECK(pio->port == 0x3f8);
    CHECK(pio->is_write);
    CHECK(pio->size == 2);
    REQUIRE(pio->data.size() == 6);
    CHECK(std::memcmp(pio->data.data(), "abcdef", 6) == 0);
}

TEST_CASE("what is read by an MMIO exit goes back through kvm_run", "[kvm]") {
    FakeKvm fake;
    FakeVm vm{fake};
    const auto vcpu = vm.vcpu();
    kvm_run* shared = nullptr;
    fake.on_run = [&](kvm_run& run) {
        shared = &run;
        run.exit_reason = KVM_EXIT_MMIO;
        run.mmio.phys_addr = 0xd0000004;
        run.mmio.len = 4;
        run.mmio.is_write = 0;
        return 0;
    };
    const auto exit = vcpu->run();
    REQUIRE(exit);
    const auto* mmio = std::get_if<vmm::MmioExit>(&*exit);
    REQUIRE(mmio != nullptr);
    CHECK(mmio->address == 0xd0000004);
    REQUIRE(mmio->data.size() == 4);
    mmio->data[3] = std::byte{0x5a};
    CHECK(shared->mmio.data[3] == 0x5a);
}

TEST_CASE("interrupted runs are no errors, failed ones are", "[kvm]") {
    FakeKvm fake;
    FakeVm vm{fake};
    const auto vcpu = vm.vcpu();
    for (const int error : {EINTR, EAGAIN}) {
        fake.on_run = [error](kvm_run&) { return error; };
        const auto exit = vcpu->run();
        REQUIRE(exit);
        CHECK(std::holds_alternative<vmm::InterruptedExit>(*exit));
    }
    fake.on_run = [](kvm_run&) { return EFAULT; };
    CHECK_THAT(vcpu->run().error().text(), Contains("KVM_RUN"));
}

TEST_CASE("errors of KVM are readable", "[kvm]") {
    FakeKvm fake;
    FakeVm vm{fake};
    const auto vcpu = vm.vcpu();
    fake.on_run = [](kvm_run& run) {
        run.exit_reason = KVM_EXIT_INTERNAL_ERROR;
        run.internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
        run.internal.ndata = 1000;  // more than there can be
        return 0;
    };
    auto exit = vcpu->run();
    REQUIRE(exit);
    CHECK_THAT(std::get<vmm::ErrorExit>(*exit).text, Contains("internal error 1") && Contains("emulate"));
    fake.on_run = [](kvm_run& run) {
        run.exit_reason = KVM_EXIT_FAIL_ENTRY;
        run.fail_entry.hardware_entry_failure_reason = 0x80000021;
        return 0;
    };
    const auto refused = vcpu->run();
    REQUIRE_FALSE(refused);
    CHECK_THAT(refused.error().text(), Contains("0x80000021"));
    fake.on_run = [](kvm_run& run) {
        run.exit_reason = KVM_EXIT_HLT;
        return 0;
    };
    exit = vcpu->run();
    CHECK_THAT(std::get<vmm::ErrorExit>(*exit).text, Contains("exit reason 5"));
    CHECK_THAT(vcpu->describe_registers(), Contains("rip=0x0") && Contains("cr3="));
}

TEST_CASE("the TSC frequency is set only when it is not the host's", "[kvm]") {
    FakeKvm fake;
    FakeVm vm{fake};
    (void)fake.take_calls();
    CHECK(vm.vcpu(0, 0)->tsc_khz() == 2'000'000);
    CHECK(vm.vcpu(1, 2'000'000)->tsc_khz() == 2'000'000);
    const auto calls = fake.take_calls();
    CHECK(std::count(calls.begin(), calls.end(), "SET_TSC_KHZ") == 0);
    CHECK(vm.vcpu(2, 1'500'000)->tsc_khz() == 1'500'000);
    fake.failing[KVM_SET_TSC_KHZ] = EINVAL;
    const auto refused = vmm::Vcpu::create(*vm.vm, 3, *vm.kvm.supported_cpuid(), 1'500'000);
    REQUIRE_FALSE(refused);
    CHECK_THAT(refused.error().text(), Contains("1500000 kHz") && Contains("2000000"));
}

TEST_CASE("kvmclock without a guest that uses it is no error", "[kvm]") {
    FakeKvm fake;
    FakeVm vm{fake};
    const auto vcpu = vm.vcpu();
    fake.failing[KVM_KVMCLOCK_CTRL] = EINVAL;
    CHECK(vcpu->notify_paused());
    fake.failing[KVM_KVMCLOCK_CTRL] = EIO;
    CHECK_FALSE(vcpu->notify_paused());
}

TEST_CASE("entry registers", "[kvm]") {
    FakeKvm fake;
    FakeVm vm{fake};
    const auto vcpu = vm.vcpu();
    REQUIRE(vcpu->enter_at({vmm::EntryMode::protected32, 0x100000, 0x2badb002, 0x9000}));
    kvm_regs regs{};
    kvm_sregs sregs{};
    REQUIRE(vcpu->fd().call_with(KVM_REQUEST(KVM_GET_REGS), regs));
    REQUIRE(vcpu->fd().call_with(KVM_REQUEST(KVM_GET_SREGS), sregs));
    CHECK(regs.rip == 0x100000);
    CHECK(regs.rax == 0x2badb002);
    CHECK(regs.rbx == 0x9000);
    CHECK(regs.rflags == 2);
    CHECK((sregs.cr0 & 0x80000001) == 1);  // protection on, paging off
    CHECK(sregs.cs.limit == 0xffffffff);
    CHECK(sregs.cs.db == 1);
}

TEST_CASE("the registers of a 64-bit entry are those of Linux's boot protocol", "[kvm]") {
    FakeKvm fake;
    FakeVm vm{fake};
    const auto vcpu = vm.vcpu();
    vmm::EntryState entry;
    entry.mode = vmm::EntryMode::long64;
    entry.rip = 0x1000200;
    entry.rsi = 0x1d000;
    entry.cr3 = 0x16000;
    entry.gdt = 0x1c000;
    REQUIRE(vcpu->enter_at(entry));
    kvm_regs regs{};
    kvm_sregs sregs{};
    REQUIRE(vcpu->fd().call_with(KVM_REQUEST(KVM_GET_REGS), regs));
    REQUIRE(vcpu->fd().call_with(KVM_REQUEST(KVM_GET_SREGS), sregs));
    CHECK(regs.rip == 0x1000200);
    CHECK(regs.rsi == 0x1d000);
    CHECK(regs.rflags == 2);
    CHECK(sregs.cr0 == 0x80000011);
    CHECK(sregs.cr3 == 0x16000);
    CHECK(sregs.cr4 == 0x20);
    CHECK(sregs.efer == 0x500);
    CHECK(sregs.gdt.base == 0x1c000);
    CHECK(sregs.gdt.limit == 0x1f);
    CHECK(sregs.cs.selector == 0x10);
    CHECK(sregs.cs.l == 1);
    CHECK(sregs.cs.db == 0);
    for (const kvm_segment& data : {sregs.ds, sregs.es, sregs.ss}) {
        CHECK(data.selector == 0x18);
        CHECK(data.type == 3);
    }
}
