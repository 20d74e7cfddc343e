#include "cpustate_ring0.hpp"

#include "runtime/cpu.hpp"

namespace workload {
namespace {

using guest::Fields;

// What a register is given: `set | (random & random_bits)`, within what the register accepts and
// without effect on this guest, which uses neither SYSCALL, SYSENTER, SWAPGS, the PAT bit, nor MTRRs.
struct MsrPlan {
    const char* name;
    uint32_t index;
    uint64_t set;
    uint64_t random_bits;
};

constexpr uint64_t kAnyAddress = 0x00007fffffffffff;  // canonical

constexpr MsrPlan kWritten[] = {
    {"star", 0xc0000081, 0, UINT64_MAX},
    {"lstar", 0xc0000082, 0, kAnyAddress},
    {"cstar", 0xc0000083, 0, kAnyAddress},
    {"sfmask", 0xc0000084, 0, 0x3f7fd5},
    {"kernel_gs_base", 0xc0000102, 0, kAnyAddress},
    {"sysenter_cs", 0x174, 0, 0xfff8},
    // AMD keeps 32 bits of these two, and KVM restores no more there.
    {"sysenter_esp", 0x175, 0, 0x7fffffff},
    {"sysenter_eip", 0x176, 0, 0x7fffffff},
    {"tsc_aux", 0xc0000103, 0, UINT32_MAX},
    // PA0 to PA3 as at reset; PA4 to PA7, which no page uses, in another order (SDM volume 3, 12.12).
    {"pat", 0x277, 0x0401050600070406, 0},
    // MTRRs on, default write-back, as all of memory is; one range described but not valid.
    {"mtrr_def_type", 0x2ff, 0x806, 0},
    {"mtrr_phys_base0", 0x200, 0x06, 0x7ff00000},
    {"mtrr_phys_mask0", 0x201, 0, 0x7ff00000},
    {"mtrr_fix_64k", 0x250, 0x0606060606060606, 0},
};

// Registers whose first value must stay.
constexpr MsrPlan kKept[] = {
    {"efer", 0xc0000080, 0, 0},
    {"apic_base", 0x1b, 0, 0},
    {"misc_enable", 0x1a0, 0, 0},
    {"kvmclock", 0x4b564d01, 0, 0},
};

// Where KVM writes for the guest (Documentation/virt/kvm/x86/msr.rst); nothing here reads it.
alignas(64) constinit uint8_t steal_time[64] = {};
alignas(64) constinit uint8_t pv_eoi[64] = {};

struct WatchedMsr {
    const char* name;
    uint32_t index;
    uint64_t value;
    uint64_t set;
    uint64_t random_bits;  // 0: its value stays
};

constexpr uint32_t kMaxWatched = 32;
constinit WatchedMsr watched[kMaxWatched] = {};
constinit uint32_t watched_count = 0;
constinit uint32_t refused_count = 0;
constinit guest::ControlRegisters control = {};
constinit guest::DebugRegisters debug = {};
constinit uint32_t next = 0;
constinit uint64_t complete_rounds = 0;

void keep_watching(const MsrPlan& plan) {
    const guest::Msr read = guest::read_msr(plan.index);
    if (read.accepted) {
        watched[watched_count++] = {plan.name, plan.index, read.value, plan.set, plan.random_bits};
    } else {
        ++refused_count;
    }
}

// Watched by what it reads after the write: a host may leave bits out, but it must not change its mind.
void write_and_watch(const MsrPlan& plan, guest::SplitMix& values) {
    if (guest::write_msr(plan.index, plan.set | (values.next() & plan.random_bits))) {
        keep_watching(plan);
    } else {
        ++refused_count;
    }
}

bool same(const char* name, uint64_t want, uint64_t got, Fields& failure) {
    if (want == got) {
        return true;
    }
    failure.text("reason", "register_changed").text("register", name).hex("want", want).hex("got", got);
    return false;
}

bool check_control(Fields& failure) {
    const guest::ControlRegisters now = guest::read_control_registers();
    return same("cr0", control.cr0, now.cr0, failure) && same("cr2", control.cr2, now.cr2, failure) &&
           same("cr3", control.cr3, now.cr3, failure) && same("cr4", control.cr4, now.cr4, failure) &&
           same("cr8", control.cr8, now.cr8, failure);
}

bool check_debug(Fields& failure) {
    const guest::DebugRegisters now = guest::read_debug_registers();
    return same("dr0", debug.dr0, now.dr0, failure) && same("dr1", debug.dr1, now.dr1, failure) &&
           same("dr2", debug.dr2, now.dr2, failure) && same("dr3", debug.dr3, now.dr3, failure) &&
           same("dr7", debug.dr7, now.dr7, failure);
}

bool check_item(uint32_t item, Fields& failure) {
    if (item == 0) {
        return check_control(failure);
    }
    if (item == 1) {
        return check_debug(failure);
    }
    const WatchedMsr& msr = watched[item - 2];
    return same(msr.name, msr.value, guest::read_msr(msr.index).value, failure);
}

void set_control(guest::SplitMix& values) {
    control.cr2 = values.next() & kAnyAddress;
    // CR8 = 1 holds back no interrupt: vectors 0x10 to 0x1f are exceptions.
    control.cr8 = 1;
    guest::write_control_registers(control);
    control = guest::read_control_registers();
}

void set_debug(guest::SplitMix& values) {
    // Addresses and write conditions, but no breakpoint enabled (SDM volume 3 section 18.2.4).
    debug = {values.next() & kAnyAddress, values.next() & kAnyAddress, values.next() & kAnyAddress,
             values.next() & kAnyAddress, 0x11110400};
    guest::write_debug_registers(debug);
}

// False when the host refuses what it took before.
bool renew_item(uint32_t item, guest::SplitMix& values, Fields& failure) {
    if (item == 0) {
        set_control(values);
        return true;
    }
    if (item == 1) {
        set_debug(values);
        return true;
    }
    WatchedMsr& msr = watched[item - 2];
    if (msr.random_bits == 0) {
        return true;
    }
    const uint64_t wanted = msr.set | (values.next() & msr.random_bits);
    if (!guest::write_msr(msr.index, wanted)) {
        failure.text("reason", "register_refused").text("register", msr.name).hex("want", wanted);
        return false;
    }
    msr.value = guest::read_msr(msr.index).value;
    return true;
}

}  // namespace

void start_ring0_state(guest::SplitMix& values) {
    for (const MsrPlan& plan : kWritten) {
        write_and_watch(plan, values);
    }
    constexpr uint64_t kEnabled = 1;
    write_and_watch({"steal_time", 0x4b564d03, reinterpret_cast<uint64_t>(steal_time) | kEnabled, 0}, values);
    write_and_watch({"pv_eoi", 0x4b564d04, reinterpret_cast<uint64_t>(pv_eoi) | kEnabled, 0}, values);
    for (const MsrPlan& plan : kKept) {
        keep_watching(plan);
    }
    set_control(values);
    set_debug(values);
}

bool check_next_ring0_state(guest::SplitMix& values, Fields& failure) {
    if (!check_item(next, failure) || !renew_item(next, values, failure)) {
        return false;
    }
    if (++next == watched_count + 2) {
        next = 0;
        ++complete_rounds;
    }
    return true;
}

bool check_all_ring0_state(Fields& failure) {
    for (uint32_t item = 0; item < watched_count + 2; ++item) {
        if (!check_item(item, failure)) {
            return false;
        }
    }
    return true;
}

uint64_t ring0_rounds() {
    return complete_rounds;
}

void report_ring0_state(Fields& fields) {
    fields.number("msrs", watched_count).number("msrs_refused", refused_count);
}

}  // namespace workload
