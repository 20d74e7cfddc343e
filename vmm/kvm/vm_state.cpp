#include "vmm/kvm/vm_state.hpp"

namespace vmm {

Result<IrqchipState> save_irqchips(const KvmVm& vm) {
    IrqchipState state;
    state.pic_master.chip_id = KVM_IRQCHIP_PIC_MASTER;
    state.pic_slave.chip_id = KVM_IRQCHIP_PIC_SLAVE;
    state.ioapic.chip_id = KVM_IRQCHIP_IOAPIC;
    TRY(vm.fd().call_with(KVM_REQUEST(KVM_GET_IRQCHIP), state.pic_master));
    TRY(vm.fd().call_with(KVM_REQUEST(KVM_GET_IRQCHIP), state.pic_slave));
    TRY(vm.fd().call_with(KVM_REQUEST(KVM_GET_IRQCHIP), state.ioapic));
    TRY(vm.fd().call_with(KVM_REQUEST(KVM_GET_PIT2), state.pit));
    return state;
}

Result<void> restore_irqchips(const KvmVm& vm, const IrqchipState& state) {
    IrqchipState copy = state;
    // The chip is chosen by us, not by whoever wrote the state.
    copy.pic_master.chip_id = KVM_IRQCHIP_PIC_MASTER;
    copy.pic_slave.chip_id = KVM_IRQCHIP_PIC_SLAVE;
    copy.ioapic.chip_id = KVM_IRQCHIP_IOAPIC;
    TRY(vm.fd().call_with(KVM_REQUEST(KVM_SET_IRQCHIP), copy.ioapic).context("IOAPIC"));
    TRY(vm.fd().call_with(KVM_REQUEST(KVM_SET_IRQCHIP), copy.pic_master).context("PIC"));
    TRY(vm.fd().call_with(KVM_REQUEST(KVM_SET_IRQCHIP), copy.pic_slave).context("PIC"));
    // Last: it starts the timer, whose interrupts the controllers must be ready for.
    TRY(vm.fd().call_with(KVM_REQUEST(KVM_SET_PIT2), copy.pit));
    return {};
}

void normalise_for_comparison(IrqchipState& state) {
    for (kvm_pit_channel_state& channel : state.pit.channels) {
        channel.count_load_time = 0;
    }
}

}  // namespace vmm
