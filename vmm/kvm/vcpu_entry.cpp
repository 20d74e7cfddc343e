// The registers with which a vCPU starts (Vcpu::enter_at).
#include "vmm/kvm/vcpu.hpp"

namespace vmm {

namespace {

// Intel SDM volume 3, 2.5 and 2.2.1.
constexpr std::uint64_t kCr0ProtectedMode = 0x11;  // PE, and ET, which is always one
constexpr std::uint64_t kCr0Paging = std::uint64_t{1} << 31;
constexpr std::uint64_t kCr4PhysicalAddressExtension = 1U << 5;
constexpr std::uint64_t kEferLongMode = 0x500;  // LME, and LMA, which KVM wants to be told too
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

void set_flat_segments(kvm_sregs& sregs, std::uint16_t code, std::uint16_t data) {
    sregs.cs = flat_segment(code, 0xb);
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat_segment(data, 0x3);
    sregs.tr = {};
    sregs.tr.limit = 0x67;
    sregs.tr.type = 0xb;
    sregs.tr.present = 1;
}

void enter_real_mode(kvm_sregs& sregs) {
    sregs.cs.selector = 0;
    sregs.cs.base = 0;
}

// PVH boot ABI and multiboot 1 section 3.2 ask for the same: flat 32-bit segments, paging off.
void enter_protected_mode(kvm_sregs& sregs) {
    set_flat_segments(sregs, 0x8, 0x10);
    sregs.cr0 = kCr0ProtectedMode;
}

void enter_long_mode(kvm_sregs& sregs, const EntryState& entry) {
    set_flat_segments(sregs, kLongCodeSelector, kLongDataSelector);
    sregs.cs.l = 1;
    sregs.cs.db = 0;
    sregs.gdt.base = entry.gdt;
    sregs.gdt.limit = kLongGdtBytes - 1;
    sregs.cr3 = entry.cr3;
    sregs.cr4 = kCr4PhysicalAddressExtension;
    sregs.efer = kEferLongMode;
    sregs.cr0 = kCr0ProtectedMode | kCr0Paging;
}

}  // namespace

Result<void> Vcpu::enter_at(const EntryState& entry) {
    kvm_sregs sregs{};
    TRY(fd_.call_with(KVM_REQUEST(KVM_GET_SREGS), sregs));
    switch (entry.mode) {
        case EntryMode::real16:
            enter_real_mode(sregs);
            break;
        case EntryMode::protected32:
            enter_protected_mode(sregs);
            break;
        case EntryMode::long64:
            enter_long_mode(sregs, entry);
            break;
    }
    TRY(fd_.call_with(KVM_REQUEST(KVM_SET_SREGS), sregs));
    kvm_regs regs{};
    regs.rip = entry.rip;
    regs.rax = entry.rax;
    regs.rbx = entry.rbx;
    regs.rsi = entry.rsi;
    regs.rflags = kRflagsReserved;
    TRY(fd_.call_with(KVM_REQUEST(KVM_SET_REGS), regs));
    return {};
}

}  // namespace vmm
