#include "vmm/kvm/vcpu.hpp"

#include "vmm/base/check.hpp"
#include "vmm/kvm/flexible.hpp"
#include "vmm/kvm/guest_clock.hpp"
#include "vmm/kvm/msrs.hpp"

namespace vmm {

namespace {

Result<void> set_cpuid(const KvmFd& vcpu, const CpuidTable& table) {
    Flexible<kvm_cpuid2, kvm_cpuid_entry2> list{table.entries.size()};
    list.header().nent = static_cast<std::uint32_t>(table.entries.size());
    for (std::size_t i = 0; i < table.entries.size(); ++i) {
        const CpuidEntry& e = table.entries[i];
        list[i] = {e.leaf, e.subleaf, e.flags, e.eax, e.ebx, e.ecx, e.edx, {}};
    }
    TRY(vcpu.call_with(KVM_REQUEST(KVM_SET_CPUID2), list.header()));
    return {};
}

SystemEventExit::Kind system_event(std::uint32_t type) {
    switch (type) {
        case KVM_SYSTEM_EVENT_SHUTDOWN:
            return SystemEventExit::Kind::power_off;
        case KVM_SYSTEM_EVENT_RESET:
            return SystemEventExit::Kind::reset;
        default:
            return SystemEventExit::Kind::other;
    }
}

}  // namespace

Vcpu::Vcpu(const KvmVm& vm, KvmFd fd, std::uint32_t index, Mapping run)
    : vm_(vm), fd_(std::move(fd)), index_(index), run_(std::move(run)) {
}

Result<std::unique_ptr<Vcpu>> Vcpu::create(const KvmVm& vm, std::uint32_t index, const CpuidTable& table,
                                           std::uint32_t tsc_khz) {
    const std::string name = fmt::format("vCPU {}", index);
    UniqueFd raw{TRY(vm.fd().call(KVM_REQUEST(KVM_CREATE_VCPU), index).context(name))};
    Mapping run = TRY(vm.fd().port().map(raw.get(), vm.run_bytes()).context(name));
    std::unique_ptr<Vcpu> vcpu{new Vcpu{vm, KvmFd{vm.fd().port(), std::move(raw)}, index, std::move(run)}};
    TRY(vcpu->set_up(table, tsc_khz).context(name));
    return vcpu;
}

Result<void> Vcpu::set_up(const CpuidTable& table, std::uint32_t tsc_khz) {
    // CPUID first: which registers and features the vCPU has follows from it.
    TRY(set_cpuid(fd_, cpuid_for_vcpu(table, index_)));
    TRY(set_tsc_khz(tsc_khz));
    kvm_device_attr offset{};
    offset.group = KVM_VCPU_TSC_CTRL;
    offset.attr = KVM_VCPU_TSC_OFFSET;
    has_tsc_offset_ = vm_.capabilities().vcpu_attributes &&
                      fd_.call_with(KVM_REQUEST(KVM_HAS_DEVICE_ATTR), offset).has_value();
    msrs_ = TRY(readable_msrs(fd_, vm_.msr_indices()));
    return {};
}

Result<void> Vcpu::set_tsc_khz(std::uint32_t tsc_khz) {
    host_tsc_khz_ = static_cast<std::uint32_t>(TRY(fd_.call(KVM_REQUEST(KVM_GET_TSC_KHZ))));
    tsc_khz_ = tsc_khz == 0 ? host_tsc_khz_ : tsc_khz;
    if (tsc_khz_ != host_tsc_khz_) {
        TRY(fd_.call(KVM_REQUEST(KVM_SET_TSC_KHZ), tsc_khz_)
                .context(fmt::format("the guest's TSC runs at {} kHz, this host's at {}", tsc_khz_,
                                     host_tsc_khz_)));
    }
    return {};
}

Result<Exit> Vcpu::run() {
    const auto ran = fd_.call(KVM_REQUEST(KVM_RUN));
    if (!ran) {
        // EAGAIN: a vCPU that waited for INIT or SIPI got one; it runs at the next call.
        if (ran.error().sys_errno() != EINTR && ran.error().sys_errno() != EAGAIN) {
            return Failure{ran.error()};
        }
        shared().exit_reason = KVM_EXIT_INTR;  // KVM does not always say so itself
    }
    if (shared().exit_reason == KVM_EXIT_FAIL_ENTRY) {
        return fail(Code::kvm, "KVM_RUN: the CPU refused to enter the guest, hardware reason {:#x}",
                    std::uint64_t{shared().fail_entry.hardware_entry_failure_reason});
    }
    return decode_exit();
}

Exit Vcpu::decode_exit() const {
    kvm_run& run = shared();
    const std::span<std::byte> bytes = run_.bytes();
    switch (run.exit_reason) {
        case KVM_EXIT_IO: {
            const std::size_t size = std::size_t{run.io.size} * run.io.count;
            VERIFY(run.io.data_offset <= bytes.size() && size <= bytes.size() - run.io.data_offset);
            return PioExit{run.io.port, run.io.direction == KVM_EXIT_IO_OUT, run.io.size,
                           bytes.subspan(run.io.data_offset, size)};
        }
        case KVM_EXIT_MMIO:
            VERIFY(run.mmio.len <= sizeof run.mmio.data);
            return MmioExit{run.mmio.phys_addr, run.mmio.is_write != 0,
                            std::as_writable_bytes(std::span{run.mmio.data}).first(run.mmio.len)};
        case KVM_EXIT_SHUTDOWN:
            return ShutdownExit{};
        case KVM_EXIT_SYSTEM_EVENT:
            return SystemEventExit{system_event(run.system_event.type), run.system_event.type};
        case KVM_EXIT_INTR:
            return InterruptedExit{};
        case KVM_EXIT_INTERNAL_ERROR: {
            std::string text = fmt::format("KVM internal error {}", std::uint32_t{run.internal.suberror});
            if (run.internal.suberror == KVM_INTERNAL_ERROR_EMULATION) {
                text += " (an instruction that KVM cannot emulate)";
            }
            for (std::uint32_t i = 0; i < run.internal.ndata && i < std::size(run.internal.data); ++i) {
                text += fmt::format(" {:#x}", std::uint64_t{run.internal.data[i]});
            }
            return ErrorExit{std::move(text)};
        }
        default:
            return ErrorExit{fmt::format("exit reason {} was not asked for", std::uint32_t{run.exit_reason})};
    }
}

void Vcpu::set_immediate_exit(bool on) {
    __atomic_store_n(&shared().immediate_exit, static_cast<std::uint8_t>(on ? 1 : 0), __ATOMIC_SEQ_CST);
}

Result<void> Vcpu::notify_paused() const {
    if (!vm_.capabilities().kvmclock_ctrl) {
        return {};
    }
    const auto told = fd_.call(KVM_REQUEST(KVM_KVMCLOCK_CTRL));
    if (!told && told.error().sys_errno() != EINVAL) {  // EINVAL: the guest does not use kvmclock
        return Failure{told.error()};
    }
    return {};
}

std::string Vcpu::describe_registers() const {
    kvm_regs r{};
    kvm_sregs s{};
    if (!fd_.call_with(KVM_REQUEST(KVM_GET_REGS), r) || !fd_.call_with(KVM_REQUEST(KVM_GET_SREGS), s)) {
        return fmt::format("vcpu={} registers cannot be read", index_);
    }
    const auto u = [](auto value) { return static_cast<std::uint64_t>(value); };
    return fmt::format(
        "vcpu={} rip={:#x} rflags={:#x} rsp={:#x} rax={:#x} rbx={:#x} rcx={:#x} rdx={:#x} rsi={:#x} "
        "rdi={:#x} "
        "rbp={:#x} r8={:#x} r9={:#x} r10={:#x} r11={:#x} r12={:#x} r13={:#x} r14={:#x} r15={:#x} "
        "cs={:#x}:{:#x} "
        "cr0={:#x} cr2={:#x} cr3={:#x} cr4={:#x} efer={:#x}",
        index_, u(r.rip), u(r.rflags), u(r.rsp), u(r.rax), u(r.rbx), u(r.rcx), u(r.rdx), u(r.rsi), u(r.rdi),
        u(r.rbp), u(r.r8), u(r.r9), u(r.r10), u(r.r11), u(r.r12), u(r.r13), u(r.r14), u(r.r15),
        u(s.cs.selector), u(s.cs.base), u(s.cr0), u(s.cr2), u(s.cr3), u(s.cr4), u(s.efer));
}

}  // namespace vmm
