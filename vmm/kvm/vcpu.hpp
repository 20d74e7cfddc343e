// Vcpu: one virtual CPU. Owns its descriptor and the region it shares with the kernel.
#pragma once

#include <memory>
#include <vector>

#include "vmm/kvm/entry.hpp"
#include "vmm/kvm/exit.hpp"
#include "vmm/kvm/vm.hpp"

namespace vmm {

class Vcpu {
  public:
    // CPUID and TSC frequency are set here and never again: KVM refuses another CPUID once a vCPU has run,
    // and the set of MSRs depends on it. `table` is the machine's; tsc_khz 0: the host's frequency.
    static Result<std::unique_ptr<Vcpu>> create(const KvmVm& vm, std::uint32_t index, const CpuidTable& table,
                                                std::uint32_t tsc_khz);

    Vcpu(const Vcpu&) = delete;
    Vcpu& operator=(const Vcpu&) = delete;

    // Runs the guest until it needs us; completes the previous exit first. On the vCPU's thread. An error is
    // a KVM_RUN that failed, or the CPU refused to enter the guest (KVM_EXIT_FAIL_ENTRY): it cannot go on.
    Result<Exit> run();

    // While set, run() completes the previous exit and comes back with InterruptedExit (or the next exit of
    // the same instruction) before another guest instruction. Any thread. Set it before the signal that gets
    // the vCPU out of the guest, then a signal that comes just before KVM_RUN is not lost.
    void set_immediate_exit(bool on);

    // Registers of the first instruction. On the state after reset.
    Result<void> enter_at(const EntryState& entry);
    // Tells kvmclock that the guest was paused, so that its watchdogs forgive (KVM_KVMCLOCK_CTRL). Before it
    // runs again.
    Result<void> notify_paused() const;
    // One line for a crash report; says so if the registers cannot be read. On the vCPU's thread.
    std::string describe_registers() const;

    std::uint32_t index() const { return index_; }
    const KvmFd& fd() const { return fd_; }
    const KvmVm& vm() const { return vm_; }
    std::uint32_t tsc_khz() const { return tsc_khz_; }            // of the guest
    std::uint32_t host_tsc_khz() const { return host_tsc_khz_; }  // of the host, as KVM has it
    bool has_tsc_offset() const { return has_tsc_offset_; }       // KVM_VCPU_TSC_OFFSET
    // The MSRs that make up its state here (sorted): see readable_msrs().
    std::span<const std::uint32_t> msrs() const { return msrs_; }

  private:
    Vcpu(const KvmVm& vm, KvmFd fd, std::uint32_t index, Mapping run);
    Result<void> set_up(const CpuidTable& table, std::uint32_t tsc_khz);
    Result<void> set_tsc_khz(std::uint32_t tsc_khz);
    kvm_run& shared() const { return *reinterpret_cast<kvm_run*>(run_.bytes().data()); }
    Exit decode_exit() const;

    const KvmVm& vm_;
    KvmFd fd_;
    std::uint32_t index_;
    Mapping run_;
    std::uint32_t tsc_khz_ = 0;
    std::uint32_t host_tsc_khz_ = 0;
    bool has_tsc_offset_ = false;
    std::vector<std::uint32_t> msrs_;
};

}  // namespace vmm
