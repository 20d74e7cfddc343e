#include "vmm/kvm/vcpu_state.hpp"

#include <algorithm>

namespace vmm {

namespace {

constexpr std::size_t kXsaveBytes = sizeof(kvm_xsave);
constexpr std::size_t kLapicCurrentCount = 0x390;  // Intel SDM volume 3, table 11-1

Result<std::uint64_t> get_tsc_offset(const Vcpu& vcpu) {
    std::uint64_t offset = 0;
    kvm_device_attr attr{};
    attr.group = KVM_VCPU_TSC_CTRL;
    attr.attr = KVM_VCPU_TSC_OFFSET;
    attr.addr = reinterpret_cast<std::uintptr_t>(&offset);
    TRY(vcpu.fd().call_with(KVM_REQUEST(KVM_GET_DEVICE_ATTR), attr).context("TSC offset"));
    return offset;
}

Result<void> set_tsc_offset(const Vcpu& vcpu, std::uint64_t offset) {
    kvm_device_attr attr{};
    attr.group = KVM_VCPU_TSC_CTRL;
    attr.attr = KVM_VCPU_TSC_OFFSET;
    attr.addr = reinterpret_cast<std::uintptr_t>(&offset);
    TRY(vcpu.fd().call_with(KVM_REQUEST(KVM_SET_DEVICE_ATTR), attr).context("TSC offset"));
    return {};
}

// Ticks of the guest's TSC for a value or a distance of the host's.
std::uint64_t guest_ticks(const Vcpu& vcpu, std::uint64_t host_ticks) {
    const unsigned ratio_bits = vcpu.vm().capabilities().tsc_scaling ? host_tsc_ratio_bits() : 0;
    return unoffset_tsc(host_ticks, vcpu.tsc_khz(), vcpu.host_tsc_khz(), ratio_bits);
}

// The guest's TSC when `clock` was read. Both ways give all vCPUs the same instant.
Result<std::uint64_t> save_tsc(const Vcpu& vcpu, const ClockReading& clock) {
    if (vcpu.has_tsc_offset()) {
        return guest_ticks(vcpu, clock.host_tsc) + TRY(get_tsc_offset(vcpu));
    }
    const std::uint64_t value = TRY(get_msrs(vcpu.fd(), {&kMsrTsc, 1}))[0].value;
    return value - guest_ticks(vcpu, host_tsc() - clock.host_tsc);
}

Result<void> restore_tsc(const Vcpu& vcpu, std::uint64_t saved, const ClockPair& clocks) {
    const std::uint64_t tsc =
        advance_tsc(saved, vcpu.tsc_khz(), clocks.saved.kvmclock_ns, clocks.now.state.kvmclock_ns);
    if (vcpu.has_tsc_offset()) {
        return set_tsc_offset(vcpu, tsc - guest_ticks(vcpu, clocks.now.host_tsc));
    }
    const MsrValue msr{kMsrTsc, tsc + guest_ticks(vcpu, host_tsc() - clocks.now.host_tsc)};
    return set_msrs(vcpu.fd(), {&msr, 1});
}

Result<Bytes> get_xsave(const Vcpu& vcpu) {
    const std::size_t size = vcpu.vm().capabilities().xsave_bytes;
    Bytes area(std::max(size, kXsaveBytes));
    const KvmRequest request = size != 0 ? KVM_REQUEST(KVM_GET_XSAVE2) : KVM_REQUEST(KVM_GET_XSAVE);
    TRY(vcpu.fd().call_with(request, area[0]));
    return area;
}

// KVM reads as many bytes as it has itself. What the source has beyond that must be empty.
Result<void> set_xsave(const Vcpu& vcpu, const Bytes& saved) {
    Bytes area = saved;
    const std::size_t size = std::max<std::size_t>(vcpu.vm().capabilities().xsave_bytes, kXsaveBytes);
    for (std::size_t i = size; i < area.size(); ++i) {
        if (area[i] != std::byte{0}) {
            return fail(Code::unsupported, "XSAVE: {} bytes with data at {}, this host has {}", area.size(),
                        i, size);
        }
    }
    area.resize(size);
    TRY(vcpu.fd().call_with(KVM_REQUEST(KVM_SET_XSAVE), area[0]));
    return {};
}

// What is zero and unknown here is left out: the source merely has a register that this host does not. The
// TSC deadline comes last: KVM compares it with the TSC at once. The wall clock is the VM's: each write makes
// KVM write guest memory, and vCPUs are restored all at once.
Result<void> restore_msrs(const Vcpu& vcpu, const std::vector<MsrValue>& saved) {
    std::vector<MsrValue> msrs;
    std::optional<MsrValue> deadline;
    for (const MsrValue& msr : saved) {
        const bool known = std::binary_search(vcpu.msrs().begin(), vcpu.msrs().end(), msr.index);
        const bool of_vm = msr.index == kMsrWallClock || msr.index == kMsrWallClockNew;
        if (of_vm && vcpu.index() != 0) {
            continue;
        }
        if (msr.index == kMsrTscDeadline) {
            deadline = msr;
        } else if (msr.index != kMsrTsc && (known || msr.value != 0)) {
            msrs.push_back(msr);
        }
    }
    if (deadline) {
        msrs.push_back(*deadline);
    }
    return set_msrs(vcpu.fd(), msrs);
}

}  // namespace

Result<VcpuState> save_vcpu(const Vcpu& vcpu, const ClockReading& clock) {
    const KvmFd& fd = vcpu.fd();
    VcpuState state;
    // First: reading it may accept a pending INIT or SIPI, which changes registers.
    TRY(fd.call_with(KVM_REQUEST(KVM_GET_MP_STATE), state.mp_state));
    TRY(fd.call_with(KVM_REQUEST(KVM_GET_REGS), state.regs));
    state.has_sregs2 = vcpu.vm().capabilities().sregs2;
    if (state.has_sregs2) {
        TRY(fd.call_with(KVM_REQUEST(KVM_GET_SREGS2), state.sregs2));
    } else {
        TRY(fd.call_with(KVM_REQUEST(KVM_GET_SREGS), state.sregs));
    }
    TRY(fd.call_with(KVM_REQUEST(KVM_GET_XCRS), state.xcrs));
    state.xsave = TRY(get_xsave(vcpu));
    TRY(fd.call_with(KVM_REQUEST(KVM_GET_DEBUGREGS), state.debugregs));
    TRY(fd.call_with(KVM_REQUEST(KVM_GET_LAPIC), state.lapic));
    state.tsc = TRY(save_tsc(vcpu, clock));
    state.msrs = TRY(get_msrs(fd, vcpu.msrs()));
    std::erase_if(state.msrs, [](const MsrValue& msr) { return msr.index == kMsrTsc; });
    // Last: the calls above may still move an event from pending to injected.
    TRY(fd.call_with(KVM_REQUEST(KVM_GET_VCPU_EVENTS), state.events));
    return state;
}

Result<void> restore_vcpu(const Vcpu& vcpu, const VcpuState& state, const std::optional<ClockPair>& clocks) {
    const KvmFd& fd = vcpu.fd();
    VcpuState s = state;  // ioctl arguments are not const
    if (s.has_sregs2 && !vcpu.vm().capabilities().sregs2) {
        return fail(Code::unsupported, "the state has KVM_GET_SREGS2, which this host's KVM does not take");
    }
    // CPUID and the TSC frequency were set when the vCPU was created. The TSC before everything that is
    // measured with it.
    if (clocks) {
        TRY(restore_tsc(vcpu, s.tsc, *clocks));
    }
    TRY(fd.call_with(KVM_REQUEST(KVM_SET_MP_STATE), s.mp_state));
    TRY(fd.call_with(KVM_REQUEST(KVM_SET_REGS), s.regs));
    // Before the LAPIC: they hold the APIC base, which says whether its state is in x2APIC form.
    if (s.has_sregs2) {
        TRY(fd.call_with(KVM_REQUEST(KVM_SET_SREGS2), s.sregs2));
    } else {
        TRY(fd.call_with(KVM_REQUEST(KVM_SET_SREGS), s.sregs));
    }
    // Before XSAVE: XCR0 says which of its components are there.
    TRY(fd.call_with(KVM_REQUEST(KVM_SET_XCRS), s.xcrs));
    TRY(set_xsave(vcpu, s.xsave));
    TRY(fd.call_with(KVM_REQUEST(KVM_SET_DEBUGREGS), s.debugregs));
    // LAPIC before MSRs: a TSC deadline written before the LAPIC is in deadline mode is dropped without a
    // word, and a halted guest never wakes.
    TRY(fd.call_with(KVM_REQUEST(KVM_SET_LAPIC), s.lapic));
    TRY(restore_msrs(vcpu, s.msrs));
    // Last: setting registers clears pending exceptions, and the LAPIC may have raised an event.
    TRY(fd.call_with(KVM_REQUEST(KVM_SET_VCPU_EVENTS), s.events));
    return {};
}

void normalise_for_comparison(VcpuState& state) {
    state.tsc = 0;
    for (MsrValue& msr : state.msrs) {
        if (msr.index == kMsrTscDeadline) {
            msr.value = 0;
        }
    }
    std::fill_n(state.lapic.regs + kLapicCurrentCount, sizeof(std::uint32_t), char{0});
}

}  // namespace vmm
