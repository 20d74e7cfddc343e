// The complete state of a vCPU, apart from CPUID and TSC frequency, which are given when it is created.
#pragma once

#include <vector>

#include "vmm/kvm/guest_clock.hpp"
#include "vmm/kvm/msrs.hpp"
#include "vmm/kvm/vcpu.hpp"

namespace vmm {

struct VcpuState {
    static constexpr StateId id{"kvm-vcpu", 1, 1};
    static constexpr std::size_t kMaxXsave = 64 << 10;
    static constexpr std::size_t kMaxMsrs = 4096;

    std::uint64_t tsc = 0;  // when kvmclock was ClockState::kvmclock_ns
    kvm_mp_state mp_state{};
    kvm_regs regs{};
    bool has_sregs2 = false;
    kvm_sregs sregs{};    // without sregs2, else zero
    kvm_sregs2 sregs2{};  // with it, else zero
    kvm_xcrs xcrs{};
    Bytes xsave;  // standard format, as long as the host's KVM has it
    kvm_debugregs debugregs{};
    kvm_lapic_state lapic{};
    std::vector<MsrValue> msrs;  // without the TSC
    kvm_vcpu_events events{};

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("tsc", self.tsc);
        v.raw("mp_state", self.mp_state);
        v.raw("regs", self.regs);
        v.field("has_sregs2", self.has_sregs2);
        v.raw("sregs", self.sregs);
        v.raw("sregs2", self.sregs2);
        v.raw("xcrs", self.xcrs);
        v.bytes("xsave", self.xsave, kMaxXsave);
        v.raw("debugregs", self.debugregs);
        v.raw("lapic", self.lapic);
        v.list("msrs", self.msrs, kMaxMsrs);
        v.raw("events", self.events);
    }
};

// The vCPU is out of the guest and its last exit is completed. `clock` was read after all vCPUs had stopped.
Result<VcpuState> save_vcpu(const Vcpu& vcpu, const ClockReading& clock);

// The clocks of the state (`saved`) and of this host after restore_clock() (`now`).
struct ClockPair {
    ClockState saved;
    ClockReading now;
};
// Without `clocks` the TSC goes on as it is: a reset does not turn time back.
Result<void> restore_vcpu(const Vcpu& vcpu, const VcpuState& state, const std::optional<ClockPair>& clocks);

// Sets to zero what differs between a save and the save after a restore: TSC, TSC deadline, LAPIC current
// count.
void normalise_for_comparison(VcpuState& state);

}  // namespace vmm
