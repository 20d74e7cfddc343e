// State of the interrupt controllers and the timer in the kernel.
#pragma once

#include "vmm/kvm/vm.hpp"
#include "vmm/state/field.hpp"

namespace vmm {

struct IrqchipState {
    static constexpr StateId id{"kvm-irqchip", 1, 1};

    kvm_irqchip pic_master{};
    kvm_irqchip pic_slave{};
    kvm_irqchip ioapic{};
    kvm_pit_state2 pit{};

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.raw("pic_master", self.pic_master);
        v.raw("pic_slave", self.pic_slave);
        v.raw("ioapic", self.ioapic);
        v.raw("pit", self.pit);
    }
};

// vCPUs are stopped, and saved after this: see save_machine().
Result<IrqchipState> save_irqchips(const KvmVm& vm);
// After the LAPIC of every vCPU: an interrupt that the IOAPIC delivers while its state is set is lost in a
// LAPIC whose state is set afterwards.
Result<void> restore_irqchips(const KvmVm& vm, const IrqchipState& state);

// Sets to zero what differs between a save and the save after a restore: the PIT's load times.
void normalise_for_comparison(IrqchipState& state);

}  // namespace vmm
