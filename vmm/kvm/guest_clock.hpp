// The guest's clocks: kvmclock (one for the VM) and the TSC (one for each vCPU). Policy: time spent is time
// spent, never backwards; kvmclock is the authority, and each TSC keeps its distance to it.
//
// Sources: KVM API 4.30 and 4.31 (KVM_GET_CLOCK, KVM_SET_CLOCK); Documentation/virt/kvm/devices/vcpu.rst,
// section 4.1.
#pragma once

#include <optional>

#include "vmm/base/clock.hpp"
#include "vmm/kvm/vm.hpp"
#include "vmm/state/field.hpp"

namespace vmm {

// kvmclock at one instant. What travels is independent of the host's TSC.
struct ClockState {
    static constexpr StateId id{"kvm-clock", 1, 1};

    std::uint64_t kvmclock_ns = 0;
    std::uint64_t realtime_ns = 0;  // CLOCK_REALTIME of the host at that instant

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("kvmclock_ns", self.kvmclock_ns);
        v.field("realtime_ns", self.realtime_ns);
    }
};

// The same instant in all clocks of this host.
struct ClockReading {
    ClockState state;
    std::uint64_t host_tsc = 0;
};

// kvmclock, CLOCK_REALTIME and TSC together: from the kernel where it offers the three as one, else read
// around the call.
Result<ClockReading> read_clock(const KvmVm& vm, const Clock& clock);

// Sets kvmclock to `saved` plus the time since, which is `elapsed` or, without it, what CLOCK_REALTIME of the
// two hosts says. Returns the clocks after that. Before the TSC of any vCPU is set.
Result<ClockReading> restore_clock(const KvmVm& vm, const ClockState& saved, std::optional<Duration> elapsed,
                                   const Clock& clock);

// A TSC of `khz` that was `tsc` when kvmclock was `then_ns`, at the time when kvmclock is `now_ns`.
std::uint64_t advance_tsc(std::uint64_t tsc, std::uint32_t khz, std::uint64_t then_ns, std::uint64_t now_ns);

// Whether KVM lets a guest of one frequency run unscaled on a host of the other: within 250 ppm
// (tsc_tolerance_ppm).
bool tsc_frequencies_agree(std::uint32_t guest_khz, std::uint32_t host_khz);

// The TSC of the CPU that runs this.
std::uint64_t host_tsc();

// Fractional bits of the ratio by which this CPU scales a guest's TSC: 48 with VMX, 32 with SVM.
unsigned host_tsc_ratio_bits();

// What the guest's TSC would be at offset 0: the host's, or, if the frequencies do not agree, scaled by KVM's
// own ratio of `ratio_bits` fractional bits. 0: KVM does not scale. The exact quotient would be ahead of
// KVM's, and the guest's TSC would go back by the difference (100 us after some days on AMD).
std::uint64_t unoffset_tsc(std::uint64_t tsc, std::uint32_t guest_khz, std::uint32_t host_khz,
                           unsigned ratio_bits);

// Sets to zero what differs between a save and the save after a restore: all of it.
void normalise_for_comparison(ClockState& state);

}  // namespace vmm
