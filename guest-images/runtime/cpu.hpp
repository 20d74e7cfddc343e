#pragma once

#include <stdint.h>

#include "runtime/abi.h"

namespace guest {

// LFENCE keeps RDTSC from moving up past earlier loads (SDM volume 2, RDTSC), so that two reads in
// program order are never seen backwards by themselves.
inline uint64_t rdtsc() {
    uint32_t low, high;
    asm volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return uint64_t{high} << 32 | low;
}

inline uint8_t in8(uint16_t port) {
    uint8_t value;
    asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

inline void out8(uint16_t port, uint8_t value) {
    asm volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

// Device memory is reached by plain moves only: every instruction emulator knows those.
inline uint32_t mmio_read(uint64_t address) {
    uint32_t value;
    asm volatile("movl (%1), %0" : "=r"(value) : "r"(address) : "memory");
    return value;
}

inline void mmio_write(uint64_t address, uint32_t value) {
    asm volatile("movl %0, (%1)" : : "r"(value), "r"(address) : "memory");
}

struct Msr {
    uint64_t value;
    bool accepted;
};

inline Msr read_msr(uint32_t index) {
    uint64_t value, refused;
    asm volatile("ud2"
                 : "=a"(value), "=d"(refused)
                 : "a"(uint64_t{RING0_READ_MSR}), "c"(index)
                 : "memory", "cc");
    return {value, refused == 0};
}

inline bool write_msr(uint32_t index, uint64_t value) {
    uint64_t function = RING0_WRITE_MSR;
    asm volatile("ud2" : "+a"(function), "+d"(value) : "c"(index) : "memory", "cc");
    return value == 0;
}

struct Cpuid {
    uint32_t eax, ebx, ecx, edx;
};

// Asked in ring 0: on software KVM, CPUID at CPL 3 answers for the host and not for this machine.
inline Cpuid cpuid(uint32_t leaf, uint32_t subleaf = 0) {
    Cpuid result{leaf, 0, subleaf, 0};
    uint64_t function = RING0_CPUID;
    asm volatile("ud2" : "+a"(function) : "D"(&result) : "rbx", "rcx", "rdx", "memory", "cc");
    return result;
}

inline void call_ring0(uint64_t function, uint64_t argument = 0) {
    asm volatile("ud2" : "+a"(function) : "D"(argument) : "memory", "cc");
}

struct ControlRegisters {
    uint64_t cr0, cr2, cr3, cr4, cr8;
};

struct DebugRegisters {
    uint64_t dr0, dr1, dr2, dr3, dr7;
};

inline ControlRegisters read_control_registers() {
    ControlRegisters registers;
    call_ring0(RING0_READ_CONTROL, reinterpret_cast<uint64_t>(&registers));
    return registers;
}

// Writes CR2 and CR8 only.
inline void write_control_registers(const ControlRegisters& registers) {
    call_ring0(RING0_WRITE_CONTROL, reinterpret_cast<uint64_t>(&registers));
}

inline DebugRegisters read_debug_registers() {
    DebugRegisters registers;
    call_ring0(RING0_READ_DEBUG, reinterpret_cast<uint64_t>(&registers));
    return registers;
}

inline void write_debug_registers(const DebugRegisters& registers) {
    call_ring0(RING0_WRITE_DEBUG, reinterpret_cast<uint64_t>(&registers));
}

// Sleeps in ring 0 until an interrupt has been handled.
inline void halt() {
    call_ring0(RING0_HALT);
}

// The same, unless the counter has changed already: checked with interrupts off, so that none is slept
// through.
inline void halt_while(const volatile uint64_t& counter, uint64_t value) {
    uint64_t function = RING0_HALT_WHILE;
    asm volatile("ud2" : "+a"(function) : "D"(&counter), "S"(value) : "memory", "cc");
}

inline void enable_interrupts() {
    call_ring0(RING0_ENABLE_INTERRUPTS);
}

}  // namespace guest
