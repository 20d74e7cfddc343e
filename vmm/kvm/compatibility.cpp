#include "vmm/kvm/compatibility.hpp"

#include <algorithm>

#include "vmm/kvm/cpuid_compare.hpp"
#include "vmm/kvm/guest_clock.hpp"
#include "vmm/kvm/vcpu.hpp"

namespace vmm {

namespace {

constexpr std::uint32_t kTscDeadlineBit = 1U << 24;  // leaf 1 ecx

}  // namespace

Result<HostOffer> probe_host(const Kvm& kvm) {
    HostOffer offer;
    offer.cpuid = withhold_cpuid(TRY(kvm.supported_cpuid()));
    const auto vm = TRY(KvmVm::create(kvm, nullptr));
    const auto vcpu = TRY(Vcpu::create(*vm, 0, offer.cpuid, 0));
    offer.capabilities = vm->capabilities();
    offer.tsc_khz = vcpu->host_tsc_khz();
    offer.msrs.assign(vcpu->msrs().begin(), vcpu->msrs().end());
    return offer;
}

std::vector<std::string> missing_on(const CpuNeeds& needs, const HostOffer& offer) {
    std::vector<std::string> missing = cpuid_missing_on(needs.cpuid, offer.cpuid);
    for (const CpuidEntry& e : needs.cpuid.entries) {
        if (is_withheld_leaf(e) && (e.eax | e.ebx | e.ecx | e.edx) != 0) {
            missing.push_back(fmt::format("leaf {:#x}.{} describes a feature whose state does not travel",
                                          e.leaf, e.subleaf));
        }
    }
    const Capabilities& host = offer.capabilities;
    const auto need = [&](bool needed, bool offered, const char* what) {
        if (needed && !offered) {
            missing.push_back(fmt::format("{} is not offered by the destination's KVM", what));
        }
    };
    const CpuidEntry* basic = needs.cpuid.find(0x1);
    need(basic != nullptr && (basic->ecx & kTscDeadlineBit) != 0, host.tsc_deadline,
         "the TSC deadline timer");
    need(needs.sregs2, host.sregs2, "KVM_GET_SREGS2");
    need(needs.exception_payload, host.exception_payload, "KVM_CAP_EXCEPTION_PAYLOAD");
    need(needs.triple_fault_event, host.triple_fault_event, "KVM_CAP_X86_TRIPLE_FAULT_EVENT");
    if (needs.vcpus > host.max_vcpus) {
        missing.push_back(fmt::format("{} vCPUs are more than the {} of the destination's KVM", needs.vcpus,
                                      host.max_vcpus));
    }
    if (!host.tsc_scaling && !tsc_frequencies_agree(needs.tsc_khz, offer.tsc_khz)) {
        missing.push_back(
            fmt::format("the guest's TSC runs at {} kHz, the destination's at {}, and its KVM cannot scale",
                        needs.tsc_khz, offer.tsc_khz));
    }
    for (const std::uint32_t msr : needs.msrs) {
        if (!std::binary_search(offer.msrs.begin(), offer.msrs.end(), msr)) {
            missing.push_back(
                fmt::format("MSR {:#x}, which the guest uses, is not known to the destination", msr));
        }
    }
    return missing;
}

}  // namespace vmm
