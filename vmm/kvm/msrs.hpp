// Model-specific registers in bulk (KVM API 4.18, 4.19).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "vmm/kvm/ioctl_port.hpp"

namespace vmm {

inline constexpr std::uint32_t kMsrTsc = 0x10;
inline constexpr std::uint32_t kMsrTscDeadline = 0x6e0;
// KVM's Documentation/virt/kvm/x86/msr.rst: MSR_KVM_WALL_CLOCK and MSR_KVM_WALL_CLOCK_NEW, one for the VM.
inline constexpr std::uint32_t kMsrWallClock = 0x11;
inline constexpr std::uint32_t kMsrWallClockNew = 0x4b56'4d00;

struct MsrValue {
    std::uint32_t index = 0;
    std::uint64_t value = 0;

    bool operator==(const MsrValue&) const = default;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("index", self.index);
        v.field("value", self.value);
    }
};

// Those of `listed` (the host's index list) plus the MTRRs and the MCE banks, which that list omits, that can
// be read on this vCPU, without those of features that no guest is offered (Hyper-V, VMX, performance
// counters); sorted, without duplicates. Depends on the vCPU's CPUID. One ioctl for each that cannot be read.
Result<std::vector<std::uint32_t>> readable_msrs(const KvmFd& vcpu, std::span<const std::uint32_t> listed);

// All of them; an error names the MSR that could not be read.
Result<std::vector<MsrValue>> get_msrs(const KvmFd& vcpu, std::span<const std::uint32_t> indices);

// The indices of those that are not zero: what another host must know.
std::vector<std::uint32_t> nonzero_msrs(std::span<const MsrValue> values);

// Whether it says what the host's CPU is or can: KVM gives it a value of the host's when a vCPU is created
// and takes no other once the vCPU has run (newer kernels).
bool describes_host(std::uint32_t index);

// In the order given. KVM stops at the first it does not take: the error names that one and its value.
Result<void> set_msrs(const KvmFd& vcpu, std::span<const MsrValue> values);

}  // namespace vmm
