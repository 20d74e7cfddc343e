// What this host's KVM offers of the things we use.
#pragma once

#include <cstdint>
#include <string>

#include "vmm/kvm/ioctl_port.hpp"

namespace vmm {

// Only what may be missing; without the rest (irqchip, PIT, immediate_exit, ...) Kvm::open fails.
struct Capabilities {
    bool manual_dirty_log = false;         // KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2
    bool dirty_log_initially_set = false;  // its flag KVM_DIRTY_LOG_INITIALLY_SET
    bool sregs2 = false;
    bool exception_payload = false;
    bool triple_fault_event = false;
    bool tsc_scaling = false;       // KVM_CAP_TSC_CONTROL
    bool tsc_deadline = false;      // KVM_CAP_TSC_DEADLINE_TIMER
    bool clock_realtime = false;    // KVM_SET_CLOCK takes KVM_CLOCK_REALTIME
    bool kvmclock_ctrl = false;     // KVM_CAP_KVMCLOCK_CTRL
    bool vcpu_attributes = false;   // KVM_CAP_VCPU_ATTRIBUTES: the TSC offset may be there
    std::uint32_t xsave_bytes = 0;  // what KVM_GET_XSAVE2 fills; 0: only KVM_GET_XSAVE (4096)
    std::uint32_t max_vcpus = 0;

    // One line: "KVM offers ...; missing: ...".
    std::string report() const;
};

// Fails, naming them, when capabilities are missing without which no guest runs here.
Result<Capabilities> read_capabilities(const KvmFd& system);

}  // namespace vmm
