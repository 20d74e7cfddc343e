#include "vmm/kvm/capabilities.hpp"

#include <array>

namespace vmm {

namespace {

struct Named {
    unsigned long capability;
    const char* name;
};

constexpr std::array kRequired{
    Named{KVM_CAP_USER_MEMORY, "USER_MEMORY"},
    Named{KVM_CAP_SET_TSS_ADDR, "SET_TSS_ADDR"},
    Named{KVM_CAP_SET_IDENTITY_MAP_ADDR, "SET_IDENTITY_MAP_ADDR"},
    Named{KVM_CAP_IRQCHIP, "IRQCHIP"},
    Named{KVM_CAP_IRQ_ROUTING, "IRQ_ROUTING"},
    Named{KVM_CAP_IRQFD, "IRQFD"},
    Named{KVM_CAP_IOEVENTFD, "IOEVENTFD"},
    Named{KVM_CAP_PIT2, "PIT2"},
    Named{KVM_CAP_PIT_STATE2, "PIT_STATE2"},
    Named{KVM_CAP_EXT_CPUID, "EXT_CPUID"},
    Named{KVM_CAP_MP_STATE, "MP_STATE"},
    Named{KVM_CAP_VCPU_EVENTS, "VCPU_EVENTS"},
    Named{KVM_CAP_DEBUGREGS, "DEBUGREGS"},
    Named{KVM_CAP_XSAVE, "XSAVE"},
    Named{KVM_CAP_XCRS, "XCRS"},
    Named{KVM_CAP_ADJUST_CLOCK, "ADJUST_CLOCK"},
    Named{KVM_CAP_GET_TSC_KHZ, "GET_TSC_KHZ"},
    Named{KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT"},
};

}  // namespace

std::string Capabilities::report() const {
    std::string offered = fmt::format("up to {} vCPUs, {} bytes of XSAVE", max_vcpus, xsave_bytes);
    std::string missing;
    const auto add = [&](bool has, const char* name) {
        std::string& list = has ? offered : missing;
        list += fmt::format("{}{}", list.empty() ? "" : ", ", name);
    };
    add(manual_dirty_log, "manual dirty log");
    add(dirty_log_initially_set, "dirty log initially set");
    add(sregs2, "sregs2");
    add(exception_payload, "exception payload");
    add(triple_fault_event, "triple fault event");
    add(tsc_scaling, "TSC scaling");
    add(tsc_deadline, "TSC deadline timer");
    add(clock_realtime, "clock with realtime");
    add(kvmclock_ctrl, "kvmclock ctrl");
    add(vcpu_attributes, "vCPU attributes");
    return fmt::format("KVM offers {}; missing: {}", offered, missing.empty() ? "nothing" : missing);
}

Result<Capabilities> read_capabilities(const KvmFd& system) {
    const auto check = [&](unsigned long capability) {
        // KVM API 4.4: 0 means no; an error here means the same.
        return static_cast<std::uint32_t>(
            system.call(KVM_REQUEST(KVM_CHECK_EXTENSION), capability).value_or(0));
    };
    std::string missing;
    for (const Named& required : kRequired) {
        if (check(required.capability) == 0) {
            missing += fmt::format("{}KVM_CAP_{}", missing.empty() ? "" : ", ", required.name);
        }
    }
    if (!missing.empty()) {
        return fail(Code::unsupported, "the host's KVM lacks {}: use a newer kernel (Linux 4.13 or later)",
                    missing);
    }
    Capabilities c;
    const std::uint32_t manual = check(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);
    c.manual_dirty_log = (manual & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) != 0;
    c.dirty_log_initially_set = c.manual_dirty_log && (manual & KVM_DIRTY_LOG_INITIALLY_SET) != 0;
    c.sregs2 = check(KVM_CAP_SREGS2) != 0;
    c.exception_payload = check(KVM_CAP_EXCEPTION_PAYLOAD) != 0;
    c.triple_fault_event = check(KVM_CAP_X86_TRIPLE_FAULT_EVENT) != 0;
    c.tsc_scaling = check(KVM_CAP_TSC_CONTROL) != 0;
    c.tsc_deadline = check(KVM_CAP_TSC_DEADLINE_TIMER) != 0;
    c.clock_realtime = (check(KVM_CAP_ADJUST_CLOCK) & KVM_CLOCK_REALTIME) != 0;
    c.kvmclock_ctrl = check(KVM_CAP_KVMCLOCK_CTRL) != 0;
    c.vcpu_attributes = check(KVM_CAP_VCPU_ATTRIBUTES) != 0;
    c.xsave_bytes = check(KVM_CAP_XSAVE2);
    const std::uint32_t max = check(KVM_CAP_MAX_VCPUS);
    c.max_vcpus = max != 0 ? max : 4;  // KVM API 4.7: 4 when the capability is not there
    return c;
}

}  // namespace vmm
