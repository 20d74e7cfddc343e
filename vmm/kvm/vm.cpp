#include "vmm/kvm/vm.hpp"

#include "vmm/base/check.hpp"
#include "vmm/kvm/flexible.hpp"

namespace vmm {

namespace {

// Four pages in the hole between 3 and 4 GiB that neither RAM nor a device uses: Intel hosts without
// unrestricted guest need a task segment (3 pages) and an identity page table (1 page) for real mode (KVM
// API 4.64, 4.74).
constexpr unsigned long kIdentityMapAddress = 0xfffb'c000;
constexpr unsigned long kTssAddress = 0xfffb'd000;

constexpr std::uint32_t kPicPins = 8;

}  // namespace

KvmVm::KvmVm(KvmFd fd, const Kvm& kvm, std::vector<std::uint32_t> msr_indices)
    : fd_(std::move(fd)),
      capabilities_(kvm.capabilities()),
      run_bytes_(kvm.run_bytes()),
      msr_indices_(std::move(msr_indices)) {
    for (std::uint32_t gsi = 0; gsi < kGsiCount; ++gsi) {
        lines_[gsi].vm = this;
        lines_[gsi].gsi = gsi;
    }
}

Result<std::unique_ptr<KvmVm>> KvmVm::create(const Kvm& kvm, const GuestMemory* memory) {
    std::unique_ptr<KvmVm> vm{new KvmVm{TRY(kvm.create_vm()), kvm, TRY(kvm.msr_indices())}};
    TRY(vm->enable_capabilities());
    // Before the interrupt controllers: KVM waits here until nobody uses the slots as they were, and their
    // creation has begun a grace period that this one would have to sit out (5 ms).
    if (memory != nullptr) {
        TRY(vm->add_slots(*memory));
    }
    TRY(vm->create_irqchips());
    return vm;
}

// Before the first vCPU: each of them decides how a vCPU behaves or is laid out.
Result<void> KvmVm::enable_capabilities() {
    if (capabilities_.exception_payload) {
        TRY(fd_.enable(KVM_CAP_EXCEPTION_PAYLOAD, 1));
    }
    if (capabilities_.triple_fault_event) {
        TRY(fd_.enable(KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1));
    }
    if (capabilities_.manual_dirty_log) {
        TRY(fd_.enable(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
                       KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE |
                           (capabilities_.dirty_log_initially_set ? KVM_DIRTY_LOG_INITIALLY_SET : 0)));
    }
    // The size may depend on the VM, so it is asked here (KVM API 4.42).
    if (capabilities_.xsave_bytes != 0) {
        const int bytes = TRY(fd_.call(KVM_REQUEST(KVM_CHECK_EXTENSION), KVM_CAP_XSAVE2));
        capabilities_.xsave_bytes = static_cast<std::uint32_t>(bytes);
    }
    TRY(fd_.call(KVM_REQUEST(KVM_SET_TSS_ADDR), kTssAddress));
    unsigned long long identity_map = kIdentityMapAddress;
    TRY(fd_.call_with(KVM_REQUEST(KVM_SET_IDENTITY_MAP_ADDR), identity_map));
    return {};
}

Result<void> KvmVm::create_irqchips() {
    TRY(fd_.call(KVM_REQUEST(KVM_CREATE_IRQCHIP)));
    kvm_pit_config pit{};
    pit.flags = KVM_PIT_SPEAKER_DUMMY;  // port 0x61 belongs to the PIT: Linux measures the TSC with it
    TRY(fd_.call_with(KVM_REQUEST(KVM_CREATE_PIT2), pit));
    return set_routing();
}

// KVM's default sends GSI 0 (the PIT) to pin 0 of the IOAPIC; on PCs it is pin 2.
Result<void> KvmVm::set_routing() {
    Flexible<kvm_irq_routing, kvm_irq_routing_entry> routing{2 * kPicPins + kGsiCount};
    std::uint32_t count = 0;
    const auto add = [&](std::uint32_t gsi, std::uint32_t chip, std::uint32_t pin) {
        kvm_irq_routing_entry& entry = routing[count++];
        entry.gsi = gsi;
        entry.type = KVM_IRQ_ROUTING_IRQCHIP;
        entry.u.irqchip.irqchip = chip;
        entry.u.irqchip.pin = pin;
    };
    for (std::uint32_t gsi = 0; gsi < kGsiCount; ++gsi) {
        if (gsi < kPicPins) {
            add(gsi, KVM_IRQCHIP_PIC_MASTER, gsi);
        } else if (gsi < 2 * kPicPins) {
            add(gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - kPicPins);
        }
        if (gsi == 0) {
            add(gsi, KVM_IRQCHIP_IOAPIC, 2);
        } else if (gsi != 2) {  // 2 is the cascade of the PICs
            add(gsi, KVM_IRQCHIP_IOAPIC, gsi);
        }
    }
    routing.header().nr = count;
    TRY(fd_.call_with(KVM_REQUEST(KVM_SET_GSI_ROUTING), routing.header()));
    return {};
}

Result<void> KvmVm::add_slots(const GuestMemory& memory) {
    std::uint32_t slot = 0;
    for (const MemoryRegion& region : memory.regions()) {
        kvm_userspace_memory_region config{};
        config.slot = slot++;
        config.guest_phys_addr = region.start.value;
        config.memory_size = region.memory.bytes().size();
        config.userspace_addr = reinterpret_cast<std::uintptr_t>(region.memory.bytes().data());
        TRY(fd_.call_with(KVM_REQUEST(KVM_SET_USER_MEMORY_REGION), config)
                .context(fmt::format("memory at {:#x}", region.start.value)));
    }
    return {};
}

InterruptLine& KvmVm::interrupt(std::uint32_t gsi) {
    VERIFY(gsi < kGsiCount);
    return lines_[gsi];
}

Result<void> KvmVm::attach_interrupt(std::uint32_t gsi, int event_fd) {
    kvm_irqfd config{};
    config.fd = static_cast<std::uint32_t>(event_fd);
    config.gsi = gsi;
    TRY(fd_.call_with(KVM_REQUEST(KVM_IRQFD), config));
    return {};
}

Result<void> KvmVm::attach_doorbell(Gpa gpa, std::uint32_t value, int event_fd) {
    kvm_ioeventfd config{};
    config.addr = gpa.value;
    config.len = sizeof value;
    config.datamatch = value;
    config.fd = event_fd;
    config.flags = KVM_IOEVENTFD_FLAG_DATAMATCH;
    TRY(fd_.call_with(KVM_REQUEST(KVM_IOEVENTFD), config));
    return {};
}

void KvmVm::Line::set(bool level) {
    kvm_irq_level line{};
    line.irq = gsi;
    line.level = level ? 1 : 0;
    // It fails only without an irqchip (KVM API 4.25), and there always is one.
    VERIFY(vm->fd_.call_with(KVM_REQUEST(KVM_IRQ_LINE), line).has_value());
}

}  // namespace vmm
