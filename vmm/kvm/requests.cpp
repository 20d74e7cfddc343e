#include "vmm/kvm/requests.hpp"

#include <array>

namespace vmm {

std::span<const KvmRequest> set_up_requests() {
    static constexpr std::array kRequests{
        KVM_REQUEST(KVM_GET_API_VERSION),
        KVM_REQUEST(KVM_CHECK_EXTENSION),
        KVM_REQUEST(KVM_GET_VCPU_MMAP_SIZE),
        KVM_REQUEST(KVM_GET_SUPPORTED_CPUID),
        KVM_REQUEST(KVM_GET_MSR_INDEX_LIST),
        KVM_REQUEST(KVM_CREATE_VM),
        KVM_REQUEST(KVM_ENABLE_CAP),
        KVM_REQUEST(KVM_SET_TSS_ADDR),
        KVM_REQUEST(KVM_SET_IDENTITY_MAP_ADDR),
        KVM_REQUEST(KVM_CREATE_IRQCHIP),
        KVM_REQUEST(KVM_CREATE_PIT2),
        KVM_REQUEST(KVM_SET_GSI_ROUTING),
        KVM_REQUEST(KVM_IRQFD),
        KVM_REQUEST(KVM_IOEVENTFD),
        KVM_REQUEST(KVM_CREATE_VCPU),
        KVM_REQUEST(KVM_SET_CPUID2),
        KVM_REQUEST(KVM_GET_TSC_KHZ),
        KVM_REQUEST(KVM_SET_TSC_KHZ),
        KVM_REQUEST(KVM_HAS_DEVICE_ATTR),
    };
    return kRequests;
}

std::span<const KvmRequest> vcpu_requests() {
    static constexpr std::array kRequests{
        KVM_REQUEST(KVM_RUN),
        KVM_REQUEST(KVM_KVMCLOCK_CTRL),
        KVM_REQUEST(KVM_GET_MP_STATE),
        KVM_REQUEST(KVM_SET_MP_STATE),
        KVM_REQUEST(KVM_GET_REGS),
        KVM_REQUEST(KVM_SET_REGS),
        KVM_REQUEST(KVM_GET_SREGS),
        KVM_REQUEST(KVM_SET_SREGS),
        KVM_REQUEST(KVM_GET_SREGS2),
        KVM_REQUEST(KVM_SET_SREGS2),
        KVM_REQUEST(KVM_GET_XCRS),
        KVM_REQUEST(KVM_SET_XCRS),
        KVM_REQUEST(KVM_GET_XSAVE),
        KVM_REQUEST(KVM_GET_XSAVE2),
        KVM_REQUEST(KVM_SET_XSAVE),
        KVM_REQUEST(KVM_GET_DEBUGREGS),
        KVM_REQUEST(KVM_SET_DEBUGREGS),
        KVM_REQUEST(KVM_GET_LAPIC),
        KVM_REQUEST(KVM_SET_LAPIC),
        KVM_REQUEST(KVM_GET_MSRS),
        KVM_REQUEST(KVM_SET_MSRS),
        KVM_REQUEST(KVM_GET_VCPU_EVENTS),
        KVM_REQUEST(KVM_SET_VCPU_EVENTS),
        KVM_REQUEST(KVM_GET_DEVICE_ATTR),
        KVM_REQUEST(KVM_SET_DEVICE_ATTR),
    };
    return kRequests;
}

std::span<const KvmRequest> machine_requests() {
    static constexpr std::array kRequests{
        KVM_REQUEST(KVM_GET_CLOCK),
        KVM_REQUEST(KVM_SET_CLOCK),
        KVM_REQUEST(KVM_GET_IRQCHIP),
        KVM_REQUEST(KVM_SET_IRQCHIP),
        KVM_REQUEST(KVM_GET_PIT2),
        KVM_REQUEST(KVM_SET_PIT2),
        // The boot processor's way to its entry, after a reset.
        KVM_REQUEST(KVM_GET_SREGS),
        KVM_REQUEST(KVM_SET_SREGS),
        KVM_REQUEST(KVM_SET_REGS),
    };
    return kRequests;
}

std::span<const KvmRequest> dirty_log_requests() {
    static constexpr std::array kRequests{
        KVM_REQUEST(KVM_SET_USER_MEMORY_REGION),
        KVM_REQUEST(KVM_GET_DIRTY_LOG),
    };
    return kRequests;
}

std::span<const KvmRequest> rearm_requests() {
    static constexpr std::array kRequests{
        KVM_REQUEST(KVM_CLEAR_DIRTY_LOG),
    };
    return kRequests;
}

std::span<const KvmRequest> interrupt_requests() {
    static constexpr std::array kRequests{
        KVM_REQUEST(KVM_IRQ_LINE),
    };
    return kRequests;
}

}  // namespace vmm
