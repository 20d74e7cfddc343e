// KvmVm: a virtual machine as the kernel knows it: memory slots, interrupt controllers, timer.
#pragma once

#include <array>
#include <memory>

#include "vmm/guest/interrupt.hpp"
#include "vmm/guest/memory.hpp"
#include "vmm/kvm/kvm.hpp"

namespace vmm {

// Number of interrupt lines: the pins of one IOAPIC.
inline constexpr std::uint32_t kGsiCount = 24;

// The memory must outlive it; slot i is region i.
class KvmVm {
  public:
    // Without memory only for asking what the host offers.
    static Result<std::unique_ptr<KvmVm>> create(const Kvm& kvm, const GuestMemory* memory);

    KvmVm(const KvmVm&) = delete;
    KvmVm& operator=(const KvmVm&) = delete;

    // Line `gsi` of the interrupt controllers, as KVM_IRQ_LINE numbers them: 0..15 reach the PICs and the
    // IOAPIC, 16..23 the IOAPIC; GSI 0 is pin 2 there, as on PCs (ACPI: an interrupt source override says
    // so). Any thread.
    InterruptLine& interrupt(std::uint32_t gsi);
    // Each write to the event descriptor is an edge on line `gsi` (KVM_IRQFD). The kernel keeps a reference
    // until the VM ends.
    Result<void> attach_interrupt(std::uint32_t gsi, int event_fd);
    // A guest's 4-byte write of `value` to `gpa` signals the event descriptor, and makes no exit
    // (KVM_IOEVENTFD).
    Result<void> attach_doorbell(Gpa gpa, std::uint32_t value, int event_fd);

    const KvmFd& fd() const { return fd_; }
    // As read from the system, with xsave_bytes as this VM has it.
    const Capabilities& capabilities() const { return capabilities_; }
    std::size_t run_bytes() const { return run_bytes_; }
    // KVM_GET_MSR_INDEX_LIST of this host.
    std::span<const std::uint32_t> msr_indices() const { return msr_indices_; }

  private:
    class Line final : public InterruptLine {
      public:
        void set(bool level) override;
        KvmVm* vm = nullptr;
        std::uint32_t gsi = 0;
    };

    KvmVm(KvmFd fd, const Kvm& kvm, std::vector<std::uint32_t> msr_indices);
    Result<void> enable_capabilities();
    Result<void> create_irqchips();
    Result<void> add_slots(const GuestMemory& memory);
    Result<void> set_routing();

    KvmFd fd_;
    Capabilities capabilities_;
    std::size_t run_bytes_;
    std::vector<std::uint32_t> msr_indices_;
    std::array<Line, kGsiCount> lines_;
};

}  // namespace vmm
