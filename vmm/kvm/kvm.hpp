// Kvm: the system descriptor, /dev/kvm.
#pragma once

#include <vector>

#include "vmm/kvm/capabilities.hpp"
#include "vmm/kvm/cpuid.hpp"

namespace vmm {

class Kvm {
  public:
    // Checks the API version and the capabilities we cannot do without. An error says what to do about it.
    static Result<Kvm> open(IoctlPort& port = real_ioctls(), const char* path = "/dev/kvm");

    const Capabilities& capabilities() const { return capabilities_; }
    // KVM_GET_SUPPORTED_CPUID, unchanged.
    Result<CpuidTable> supported_cpuid() const;
    // KVM_GET_MSR_INDEX_LIST.
    Result<std::vector<std::uint32_t>> msr_indices() const;
    Result<KvmFd> create_vm() const;
    // Size in bytes of the region that a vCPU shares with the kernel.
    std::size_t run_bytes() const { return run_bytes_; }

  private:
    Kvm(KvmFd fd, Capabilities capabilities, std::size_t run_bytes)
        : fd_(std::move(fd)), capabilities_(capabilities), run_bytes_(run_bytes) {}

    KvmFd fd_;
    Capabilities capabilities_;
    std::size_t run_bytes_;
};

}  // namespace vmm
