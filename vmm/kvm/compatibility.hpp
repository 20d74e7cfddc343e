// What a guest needs from the KVM of a host, and what a host offers: compared before a migration copies
// anything.
#pragma once

#include <string>
#include <vector>

#include "vmm/kvm/kvm.hpp"

namespace vmm {

// Travels in the manifest.
struct CpuNeeds {
    static constexpr StateId id{"cpu-needs", 1, 1};

    CpuidTable cpuid;  // installed verbatim by the destination
    std::uint32_t vcpus = 0;
    std::uint32_t tsc_khz = 0;
    bool sregs2 = false;
    bool exception_payload = false;
    bool triple_fault_event = false;
    std::vector<std::uint32_t> msrs;  // those that are not zero now

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.part("cpuid", self.cpuid);
        v.field("vcpus", self.vcpus);
        v.field("tsc_khz", self.tsc_khz);
        v.field("sregs2", self.sregs2);
        v.field("exception_payload", self.exception_payload);
        v.field("triple_fault_event", self.triple_fault_event);
        v.list("msrs", self.msrs, 4096);
    }
};

struct HostOffer {
    Capabilities capabilities;
    CpuidTable cpuid;  // withhold_cpuid(KVM_GET_SUPPORTED_CPUID); lower it with apply(CpuidMask)
    std::uint32_t tsc_khz = 0;
    std::vector<std::uint32_t> msrs;  // readable by a guest with all of `cpuid`, sorted
};

// Creates a VM with one vCPU and no memory, and drops it again, which may take 20 ms: on no account inside a
// pause.
Result<HostOffer> probe_host(const Kvm& kvm);

// One readable line for each thing the guest needs and the host does not offer; empty: it fits. Pure.
std::vector<std::string> missing_on(const CpuNeeds& needs, const HostOffer& offer);

}  // namespace vmm
