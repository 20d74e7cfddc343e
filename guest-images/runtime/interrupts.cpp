#include "runtime/interrupts.hpp"

#include "runtime/cpu.hpp"
#include "runtime/lapic.hpp"

extern "C" {
struct Gate {
    uint16_t offset_low;
    uint16_t selector;
    uint8_t stack_table;
    uint8_t type;
    uint16_t offset_middle;
    uint32_t offset_high;
    uint32_t reserved;
};
extern Gate idt[256];
extern const uint64_t trap_table[EXCEPTION_VECTORS];
extern const uint64_t virtio_interrupt_table[VIRTIO_DEVICES];
void ring0_entry();
void lapic_timer_interrupt();
void ipi_interrupt();
void pit_interrupt();
void serial_interrupt();
void spurious_interrupt();
}

namespace guest {
namespace {

// SDM volume 3 section 6.14.1: 64-bit interrupt gate, present, closed to INT n at CPL 3.
constexpr uint8_t kInterruptGate = 0x8e;
constexpr uint8_t kFaultStack = 1;

constexpr uint32_t kEntryMasked = 1 << 16;

constexpr uint32_t kPitPin = 2;  // GSI 0, by the interrupt source override all PCs have
constexpr uint32_t kSerialPin = 4;

void set_gate(uint32_t vector, uint64_t handler, uint8_t stack) {
    idt[vector] = {static_cast<uint16_t>(handler),
                   KERNEL_CODE,
                   stack,
                   kInterruptGate,
                   static_cast<uint16_t>(handler >> 16),
                   static_cast<uint32_t>(handler >> 32),
                   0};
}

void set_gate(uint32_t vector, void (*handler)()) {
    set_gate(vector, reinterpret_cast<uint64_t>(handler), 0);
}

void ioapic_write(uint32_t index, uint32_t value) {
    mmio_write(IOAPIC_BASE, index);
    mmio_write(IOAPIC_BASE + 0x10, value);
}

uint32_t ioapic_read(uint32_t index) {
    mmio_write(IOAPIC_BASE, index);
    return mmio_read(IOAPIC_BASE + 0x10);
}

// Active high, fixed delivery to APIC id 0, where the boot CPU is. `entry`: the vector, and how it triggers.
void route(uint32_t pin, uint32_t entry) {
    ioapic_write(0x11 + 2 * pin, 0);
    ioapic_write(0x10 + 2 * pin, entry);
}

}  // namespace

void install_handlers() {
    for (uint32_t vector = 0; vector < EXCEPTION_VECTORS; ++vector) {
        const bool own_stack = vector == 2 || vector == 8 || vector == 18;  // NMI, #DF, #MC
        set_gate(vector, trap_table[vector], own_stack ? kFaultStack : uint8_t{0});
    }
    set_gate(VECTOR_INVALID_OPCODE, ring0_entry);
    set_gate(VECTOR_LAPIC_TIMER, lapic_timer_interrupt);
    set_gate(VECTOR_IPI, ipi_interrupt);
    set_gate(VECTOR_PIT, pit_interrupt);
    set_gate(VECTOR_SERIAL, serial_interrupt);
    set_gate(VECTOR_SPURIOUS, spurious_interrupt);
    for (uint32_t device = 0; device < VIRTIO_DEVICES; ++device) {
        set_gate(VECTOR_VIRTIO + device, virtio_interrupt_table[device], 0);
    }
}

void start_interrupts() {
    out8(0x21, 0xff);
    out8(0xa1, 0xff);
    start_lapic();
    const uint32_t pins = ((ioapic_read(1) >> 16) & 0xff) + 1;
    for (uint32_t pin = 0; pin < pins; ++pin) {
        ioapic_write(0x10 + 2 * pin, kEntryMasked);
    }
    route(kSerialPin, VECTOR_SERIAL);
    enable_interrupts();
}

void route_edge(uint32_t pin, uint32_t vector) {
    route(pin, vector);
}

uint32_t start_pit(uint64_t hz) {
    uint64_t divisor = hz == 0 ? 0x10000 : (kPitHz + hz / 2) / hz;
    divisor = divisor > 0x10000 ? 0x10000 : divisor;
    route(kPitPin, VECTOR_PIT);
    out8(0x43, 0x34);
    out8(0x40, static_cast<uint8_t>(divisor));
    out8(0x40, static_cast<uint8_t>(divisor >> 8));
    return static_cast<uint32_t>(divisor);
}

}  // namespace guest
