#pragma once

// Numbers shared by the assembler and the C++ of the runtime; macros, because both read this file.

// Segment selectors (index into the GDT of boot.S).
#define KERNEL_CODE 0x08
#define KERNEL_DATA 0x10
#define USER_DATA 0x1b
#define USER_CODE 0x23
#define KERNEL_CODE_32 0x28
#define TASK_STATES 0x30  // of CPU 0; one descriptor of 16 bytes for each CPU

// The size of `struct Cpu` (cpus.hpp): a CPU's ring-0 stack with its data below. The fields traps.S and
// boot.S use.
#define CPU_SIZE 4096
#define CPU_TIMER_TICKS 0
#define CPU_IPIS 8
#define CPU_ENTRY 16
#define CPU_USER_STACK 24
#define CPU_TASK_SELECTOR 32
#define MAX_CPUS 64

// Control and extended control registers, SDM volume 3 section 2.5 and 2.6.
#define CR0_PE_MP_ET_NE_WP_PG 0x80010033
#define CR4_PAE_OSFXSR_OSXMMEXCPT 0x620
#define CR4_FSGSBASE 0x10000
#define CR4_OSXSAVE 0x40000
#define XCR0_X87_SSE_AVX_AVX512 0xe7

// RFLAGS at CPL 3: IOPL 3, and interrupts off until enabled. Ports are open twice, by IOPL and by the
// I/O bitmap: software KVM drops IOPL, and QEMU's emulated hosts refuse the bitmap of a TSS that is
// marked busy, as that of a restored vCPU is.
#define USER_FLAGS 0x3002
#define USER_FLAGS_INTERRUPTS 0x3202

// Interrupt vectors.
#define VECTOR_NMI 2
#define VECTOR_INVALID_OPCODE 6
#define VECTOR_GENERAL_PROTECTION 13
#define EXCEPTION_VECTORS 32
#define VECTOR_LAPIC_TIMER 0x40
#define VECTOR_PIT 0x41
#define VECTOR_SERIAL 0x42
#define VECTOR_IPI 0x43
#define VECTOR_VIRTIO 0x50  // of the first of VIRTIO_DEVICES
#define VECTOR_SPURIOUS 0xff

#define LAPIC_BASE 0xfee00000
#define LAPIC_EOI 0xfee000b0
#define MSR_X2APIC_EOI 0x80b
#define IOAPIC_BASE 0xfec00000

// Devices that a guest drives at a time, and the two registers their interrupt handler uses (virtio 1.2
// section 4.2.2).
#define VIRTIO_DEVICES 4
#define VIRTIO_INTERRUPT_STATUS 0x60
#define VIRTIO_INTERRUPT_ACK 0x64

#define SERIAL_DATA 0x3f8
#define SERIAL_LINE_STATUS 0x3fd
#define SERIAL_RING 256

#define EXIT_PORT 0xf4
#define KEYBOARD_COMMAND_PORT 0x64
#define EXIT_PASS 16
#define EXIT_FAIL 17

// Ring-0 calls: `ud2` with one of these in EAX (traps.S). Not `int3`: a vCPU moved between the trap and
// its handler loses it, since KVM_GET_VCPU_EVENTS leaves software exceptions out and trusts RIP to be
// on the instruction still, which on software KVM it is not. #UD is a fault, and runs again.
#define RING0_FIRST_CALL 0x60d00000
#define RING0_READ_MSR (RING0_FIRST_CALL + 0)
#define RING0_WRITE_MSR (RING0_FIRST_CALL + 1)
#define RING0_CPUID (RING0_FIRST_CALL + 2)
#define RING0_ENABLE_INTERRUPTS (RING0_FIRST_CALL + 3)
#define RING0_HALT (RING0_FIRST_CALL + 4)
#define RING0_LOAD_PAGE_TABLES (RING0_FIRST_CALL + 5)
#define RING0_READ_CONTROL (RING0_FIRST_CALL + 6)
#define RING0_WRITE_CONTROL (RING0_FIRST_CALL + 7)
#define RING0_READ_DEBUG (RING0_FIRST_CALL + 8)
#define RING0_WRITE_DEBUG (RING0_FIRST_CALL + 9)
#define RING0_HALT_WHILE (RING0_FIRST_CALL + 10)
#define RING0_TRIPLE_FAULT (RING0_FIRST_CALL + 11)
#define RING0_HALT_FOREVER (RING0_FIRST_CALL + 12)
#define RING0_CALLS 13
