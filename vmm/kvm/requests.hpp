// Which requests are made of KVM by whom, for a process that allows no others. A test fails on one that is
// made and not listed.
#pragma once

#include <span>

#include "vmm/kvm/ioctl_port.hpp"

namespace vmm {

// To make a machine, and to learn what the host offers.
std::span<const KvmRequest> set_up_requests();
// By a vCPU's own thread: to run it, to save and to restore it, to describe a crash.
std::span<const KvmRequest> vcpu_requests();
// By whoever saves, restores or resets a machine.
std::span<const KvmRequest> machine_requests();
// By whoever copies memory, on one thread and on many.
std::span<const KvmRequest> dirty_log_requests();
std::span<const KvmRequest> rearm_requests();
// By whoever serves a device.
std::span<const KvmRequest> interrupt_requests();

}  // namespace vmm
