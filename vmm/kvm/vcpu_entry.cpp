// The registers with which a vCPU starts (Vcpu::enter_at).
#include "vmm/kvm/vcpu.hpp"

namespace vmm {

namespace {

constexpr std::uint64_t kCr0ProtectedMode =
    0x11;  // PE, and ET, which is always one (Intel SDM volume 3, 2.5)
constexpr std::uint64_t kRflagsReserved = 0x2;

// Types as in Intel SDM volume 3, tables 3-1 and 3-2.
kvm_segment flat_segment(std::uint16_t selector, std::uint8_t type) {
    kvm_segment segment{};
    segment.limit = 0xffff'ffff;
    segment.selector = selector;
    segment.type = type;
    segment.present = 1;
    segment.db = 1;
    segment.s = 1;
    segment.g = 1;
    return segment;
}

// PVH boot ABI and multiboot 1 section 3.2 ask for the same: flat 32-bit segments, paging off, interrupts
// off.
void enter_protected_mode(kvm_sregs& sregs) {
    sregs.cs = flat_segment(0x8, 0xb);
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat_segment(0x10, 0x3);
    sregs.tr = {};
    sregs.tr.limit = 0x67;
    sregs.tr.type = 0xb;
    sregs.tr.present = 1;
    sregs.cr0 = kCr0ProtectedMode;
}

}  // namespace

Result<void> Vcpu::enter_at(const EntryState& entry) {
    kvm_sregs sregs{};
    TRY(fd_.call_with(KVM_REQUEST(KVM_GET_SREGS), sregs));
    if (entry.protected_mode) {
        enter_protected_mode(sregs);
    } else {
        sregs.cs.selector = 0;
        sregs.cs.base = 0;
    }
    TRY(fd_.call_with(KVM_REQUEST(KVM_SET_SREGS), sregs));
    kvm_regs regs{};
    regs.rip = entry.rip;
    regs.rax = entry.rax;
    regs.rbx = entry.rbx;
    regs.rflags = kRflagsReserved;
    TRY(fd_.call_with(KVM_REQUEST(KVM_SET_REGS), regs));
    return {};
}

}  // namespace vmm
