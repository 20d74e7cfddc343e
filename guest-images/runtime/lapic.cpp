#include "runtime/lapic.hpp"

#include "runtime/cpu.hpp"
#include "runtime/cpus.hpp"

extern "C" volatile uint8_t x2apic_enabled;

namespace guest {
namespace {

constexpr uint32_t kSpurious = 0xf0;
constexpr uint32_t kCommand = 0x300;
constexpr uint32_t kCommandHigh = 0x310;
constexpr uint32_t kTimerEntry = 0x320;
constexpr uint32_t kLine0Entry = 0x350;
constexpr uint32_t kLine1Entry = 0x360;
constexpr uint32_t kInitialCount = 0x380;
constexpr uint32_t kCurrentCount = 0x390;
constexpr uint32_t kDivide = 0x3e0;

constexpr uint32_t kEntryMasked = 1 << 16;
constexpr uint32_t kSoftwareEnable = 1 << 8;

constexpr uint32_t kCommandNmi = 4 << 8;
constexpr uint32_t kCommandInit = 5 << 8;
constexpr uint32_t kCommandStartup = 6 << 8;
constexpr uint32_t kCommandPending = 1 << 12;
constexpr uint32_t kCommandAssert = 1 << 14;
constexpr uint32_t kCommandAllButSelf = 3 << 18;

constexpr uint32_t kMsrApicBase = 0x1b;
constexpr uint64_t kApicBaseX2apic = 1 << 10;
// Section 10.12.1.2: the MSR of the register at an offset; the command register is one of 64 bits.
constexpr uint32_t kMsrX2apic = 0x800;

constexpr uint32_t msr_of(uint32_t offset) {
    return kMsrX2apic + offset / 16;
}

uint32_t read(uint32_t offset) {
    return x2apic_enabled ? static_cast<uint32_t>(read_msr(msr_of(offset)).value)
                          : mmio_read(LAPIC_BASE + offset);
}

void write(uint32_t offset, uint32_t value) {
    if (x2apic_enabled) {
        write_msr(msr_of(offset), value);
    } else {
        mmio_write(LAPIC_BASE + offset, value);
    }
}

void command(uint32_t apic_id, uint32_t value) {
    if (x2apic_enabled) {
        // Section 10.12.3: the write does not order earlier stores by itself.
        asm volatile("mfence; lfence" : : : "memory");
        write_msr(msr_of(kCommand), uint64_t{apic_id} << 32 | value);
        return;
    }
    while ((read(kCommand) & kCommandPending) != 0) {
        relax();
    }
    write(kCommandHigh, apic_id << 24);
    write(kCommand, value);
}

}  // namespace

bool has_x2apic() {
    return (cpuid(1).ecx & 1 << 21) != 0;
}

void use_x2apic() {
    x2apic_enabled = 1;
}

void start_lapic() {
    if (x2apic_enabled) {
        write_msr(kMsrApicBase, read_msr(kMsrApicBase).value | kApicBaseX2apic);
    }
    write(kTimerEntry, kEntryMasked);
    write(kLine0Entry, kEntryMasked);
    write(kLine1Entry, kEntryMasked);
    write(kDivide, 0xb);
    write(kSpurious, kSoftwareEnable | VECTOR_SPURIOUS);
}

void set_lapic_timer_mode(TimerMode mode) {
    write(kInitialCount, 0);
    write(kTimerEntry, static_cast<uint32_t>(mode) | VECTOR_LAPIC_TIMER);
    // SDM volume 3 section 10.5.4.1: the mode must be in place before the deadline MSR is written.
    asm volatile("mfence" : : : "memory");
}

void arm_lapic_timer(uint32_t count) {
    write(kInitialCount, count);
}

uint32_t lapic_timer_count() {
    return read(kCurrentCount);
}

bool has_tsc_deadline() {
    return (cpuid(1).ecx & 1 << 24) != 0;
}

uint64_t lapic_timer_interrupts() {
    return boot_cpu.timer_ticks;
}

void send_ipi(uint32_t apic_id, uint32_t vector) {
    command(apic_id, kCommandAssert | vector);
}

void send_init(uint32_t apic_id) {
    command(apic_id, kCommandAssert | kCommandInit);
}

void send_startup(uint32_t apic_id, uint32_t page) {
    command(apic_id, kCommandAssert | kCommandStartup | page);
}

void stop_other_cpus() {
    command(0, kCommandAssert | kCommandNmi | kCommandAllButSelf);
}

}  // namespace guest
