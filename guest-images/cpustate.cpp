// Holds known values in every register a vCPU has and checks that none of them changes: general,
// x87, vector and mask registers, RFLAGS, FS and GS base, and in ring 0 control, debug and model
// specific registers, but DR6. New values every round, in ring 0 for one register a round if it can take
// another, so that a register restored from an older save is found.

#include "cpustate_ring0.hpp"
#include "runtime/clock.hpp"
#include "runtime/cpu.hpp"
#include "runtime/guest.hpp"
#include "runtime/memory.hpp"
#include "runtime/splitmix.hpp"

extern "C" {
void cpustate_hold();
extern uint64_t hold_registers[16];
extern uint64_t hold_flags;
extern uint64_t hold_loops;
extern uint64_t hold_mask;
extern uint8_t hold_extended[4096];
extern const uint64_t seen_registers[16];
extern const uint64_t seen_flags;
extern uint8_t seen_extended[4096];
extern const uint64_t enabled_xcr0;
void* memset(void* to, int value, size_t size);
}

namespace workload {

extern "C" const char workload_name[] = "cpustate";

namespace {

using guest::Fields;

// RFLAGS bits that CPL 3 may change without side effects: CF PF AF ZF SF DF OF AC ID.
constexpr uint64_t kSettableFlags = 0x240cd5;

constexpr const char* kRegisterNames[16] = {"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp",
                                            "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
constexpr uint32_t kRspIndex = 7;

// Parts of the XSAVE area (SDM volume 1 section 13.4) by what is in them: `count` units of `size`
// bytes, one every `stride` bytes.
struct Part {
    const char* name;
    uint32_t component;
    uint32_t offset;
    uint32_t size;
    uint32_t stride;
    uint32_t count;
};

constexpr uint32_t kMaxParts = 10;
constexpr uint32_t kControlParts = 4;  // the first parts: not every value is valid in them
constinit Part parts[kMaxParts] = {};
constinit uint32_t part_count = 0;

constinit guest::SplitMix values(0x6f64776974);
constinit uint64_t rounds = 0;
constinit bool has_fsgsbase = false;
constinit uint64_t fs_base = 0;
constinit uint64_t gs_base = 0;

void add_part(const Part& part) {
    if (((hold_mask | 3) >> part.component & 1) != 0) {
        parts[part_count++] = part;
    }
}

// Offsets of the components beyond SSE are the processor's choice: CPUID leaf 0xd.
uint32_t offset_of(uint32_t component) {
    return (hold_mask >> component & 1) != 0 ? guest::cpuid(0xd, component).ebx : 0;
}

uint64_t current_xcr0() {
    uint32_t low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return uint64_t{high} << 32 | low;
}

// What XSAVE is used for; nothing (then FXSAVE is) without at least x87 and SSE. XCR0 is read back,
// since an emulated host may forget XSETBV; and emulators let XCR0 have bits of registers they lack.
uint64_t usable_components() {
    constexpr uint64_t kX87AndSse = 3;
    constexpr uint64_t kAvx = 1 << 2;
    constexpr uint64_t kAvx512 = 7 << 5;
    if (enabled_xcr0 == 0) {
        return 0;
    }
    uint64_t components = enabled_xcr0 & current_xcr0();
    if ((components & kX87AndSse) != kX87AndSse) {
        return 0;
    }
    if ((guest::cpuid(1).ecx & 1 << 28) == 0) {
        components &= ~(kAvx | kAvx512);
    }
    if ((guest::cpuid(7).ebx & 1 << 16) == 0) {
        components &= ~kAvx512;
    }
    return components;
}

void find_parts() {
    hold_mask = usable_components();
    add_part({"fcw", 0, 0, 2, 2, 1});
    add_part({"fsw", 0, 2, 2, 2, 1});
    add_part({"ftw", 0, 4, 1, 1, 1});
    add_part({"mxcsr", 1, 24, 4, 4, 1});
    add_part({"st", 0, 32, 10, 16, 8});
    add_part({"xmm", 1, 160, 16, 16, 16});
    add_part({"ymm_high", 2, offset_of(2), 16, 16, 16});
    add_part({"k", 5, offset_of(5), 8, 8, 8});
    add_part({"zmm_high", 6, offset_of(6), 32, 32, 16});
    add_part({"zmm_16_to_31", 7, offset_of(7), 64, 64, 16});
}

void prepare_extended() {
    memset(hold_extended, 0, sizeof(hold_extended));
    memset(seen_extended, 0, sizeof(seen_extended));
    for (uint32_t i = kControlParts; i < part_count; ++i) {
        for (uint32_t unit = 0; unit < parts[i].count; ++unit) {
            uint8_t* bytes = hold_extended + parts[i].offset + unit * parts[i].stride;
            for (uint32_t b = 0; b < parts[i].size; ++b) {
                bytes[b] = static_cast<uint8_t>(values.next());
            }
        }
    }
    // All x87 exceptions masked (else a pending one would be raised), rounding as it comes.
    const uint64_t choice = values.next();
    auto put16 = [](uint32_t offset, uint64_t value) {
        hold_extended[offset] = static_cast<uint8_t>(value);
        hold_extended[offset + 1] = static_cast<uint8_t>(value >> 8);
    };
    put16(0, 0x037f | (choice & 0x0c00));
    put16(2, choice << 8 & 0x7f00);               // condition codes and TOP
    hold_extended[4] = 0xff;                      // abridged tag word: all registers in use
    put16(24, 0x1f80 | (choice >> 16 & 0x603f));  // MXCSR: rounding, sticky exceptions; all masked
    if (hold_mask != 0) {
        hold_extended[512] = static_cast<uint8_t>(hold_mask);  // XSTATE_BV
    }
}

bool compare_extended(Fields& failure) {
    for (uint32_t i = 0; i < part_count; ++i) {
        for (uint32_t unit = 0; unit < parts[i].count; ++unit) {
            const uint32_t start = parts[i].offset + unit * parts[i].stride;
            for (uint32_t b = start; b < start + parts[i].size; ++b) {
                if (seen_extended[b] != hold_extended[b]) {
                    failure.text("reason", "register_changed").text("register", parts[i].name);
                    failure.number("index", unit).number("byte", b - start);
                    failure.hex("want", hold_extended[b]).hex("got", seen_extended[b]);
                    return false;
                }
            }
        }
    }
    return true;
}

bool same(const char* name, uint64_t want, uint64_t got, Fields& failure) {
    if (want == got) {
        return true;
    }
    failure.text("reason", "register_changed").text("register", name).hex("want", want).hex("got", got);
    return false;
}

// Segment bases must be canonical: bits 63 to 47 equal.
uint64_t canonical(uint64_t value) {
    return value & 0x00007fffffffffff;
}

// FS and GS base keep their values from one round to the next, through the rest of the main loop.
void set_bases() {
    fs_base = canonical(values.next());
    gs_base = canonical(values.next());
    asm volatile("wrfsbase %0; wrgsbase %1" : : "r"(fs_base), "r"(gs_base));
}

bool compare_bases(Fields& failure) {
    uint64_t fs, gs;
    asm volatile("rdfsbase %0; rdgsbase %1" : "=r"(fs), "=r"(gs));
    return same("fs_base", fs_base, fs, failure) && same("gs_base", gs_base, gs, failure);
}

bool run_round(Fields& failure) {
    for (uint64_t& value : hold_registers) {
        value = values.next();
    }
    hold_registers[kRspIndex] = canonical(hold_registers[kRspIndex]);
    // Interrupts stay on: with IOPL 3, POPF writes IF.
    hold_flags = USER_FLAGS_INTERRUPTS | (values.next() & kSettableFlags);
    prepare_extended();
    cpustate_hold();
    for (uint32_t i = 0; i < 16; ++i) {
        if (!same(kRegisterNames[i], hold_registers[i], seen_registers[i], failure)) {
            return false;
        }
    }
    if (!same("rflags", hold_flags & kSettableFlags, seen_flags & kSettableFlags, failure) ||
        !compare_extended(failure)) {
        return false;
    }
    if (has_fsgsbase) {
        if (!compare_bases(failure)) {
            return false;
        }
        set_bases();
    }
    ++rounds;
    return true;
}

}  // namespace

void start(const guest::Parameters& parameters, Fields& ready) {
    hold_loops = parameters.number("loops", 30000);
    if (hold_loops == 0) {
        guest::fail(Fields().text("reason", "bad_parameter").number("loops", hold_loops));
    }
    find_parts();
    has_fsgsbase = (guest::read_control_registers().cr4 & CR4_FSGSBASE) != 0;
    if (has_fsgsbase) {
        set_bases();
    }
    start_ring0_state(values);
    ready.number("loops", hold_loops).hex("xsave", hold_mask).number("fsgsbase", has_fsgsbase);
    report_ring0_state(ready);
}

void step() {
    Fields failure;
    if (!run_round(failure) || !check_next_ring0_state(values, failure)) {
        guest::fail(failure);
    }
}

void report(Fields& fields) {
    fields.number("rounds", rounds).number("ring0_rounds", ring0_rounds());
}

bool verify(Fields& findings) {
    return run_round(findings) && check_all_ring0_state(findings);
}

}  // namespace workload
