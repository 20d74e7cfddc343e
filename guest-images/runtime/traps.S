// Everything that runs in ring 0 after boot. Ring 0 may be emulated at about 1 us an instruction
// (software KVM), so handlers do the least they can and no C++ runs here.

#include "abi.h"

    .text
    .code64

// Exceptions. The report is printed at CPL 3 by panic_main, which gets a fresh stack.

// The processor pushes an error code for vectors 8, 10 to 14, 17, 21, 29 and 30 (SDM volume 3 table 6-1).
    .macro trap_entry vector
trap_\vector:
    .if !((0x60227d00 >> \vector) & 1)
    pushq $0
    .endif
    pushq $\vector
    jmp trap
    .endm

    .irp vector, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    trap_entry \vector
    .endr

trap:
    cmpq $VECTOR_GENERAL_PROTECTION, (%rsp)
    jne 1f
    cmpq $msr_read_instruction, 16(%rsp)
    je msr_refused
    cmpq $msr_write_instruction, 16(%rsp)
    je msr_refused
1:  cmpq $VECTOR_NMI, (%rsp)
    je 3f
    // The first CPU that gets here reports; if it faults again it leaves. Others wait for its NMI.
    str %ecx
    xorl %eax, %eax
    lock cmpxchgl %ecx, panicking_task(%rip)
    je 1f
    cmpl %ecx, %eax
    je 2f
    jmp 3f
1:  popq panic_vector(%rip)
    popq panic_error(%rip)
    popq panic_rip(%rip)
    movq %cr2, %rax
    movq %rax, panic_address(%rip)
    pushq $USER_DATA
    pushq $panic_stack_top - 8
    pushq $USER_FLAGS
    pushq $USER_CODE
    pushq $panic_main
    iretq
2:  movb $EXIT_FAIL, %al
    outb %al, $EXIT_PORT
3:  hlt  // an NMI is how a CPU that fails stops the others
    jmp 3b

// Ring-0 calls (#UD): EAX = function, arguments and results as each says. Interrupts are off meanwhile.

    .globl ring0_entry
ring0_entry:
    subl $RING0_FIRST_CALL, %eax
    cmpl $RING0_CALLS, %eax
    jae trap_6
    addq $2, (%rsp)
    jmpq *ring0_table(, %rax, 8)

read_msr:  // ECX = index; RAX = value, RDX = 0, or RDX = 1 when the host refuses
msr_read_instruction:
    rdmsr
    shlq $32, %rdx
    orq %rdx, %rax
    xorl %edx, %edx
    iretq

write_msr:  // ECX = index, RDX = value; RDX = 0, or 1 when the host refuses
    movl %edx, %eax
    shrq $32, %rdx
msr_write_instruction:
    wrmsr
    xorl %edx, %edx
    iretq

msr_refused:  // #GP at one of the two instructions above: back to the call's own frame
    movq 40(%rsp), %rsp
    movl $1, %edx
    iretq

read_cpuid:  // RDI = uint32_t[4] EAX EBX ECX EDX, in and out
    movl (%rdi), %eax
    movl 8(%rdi), %ecx
    cpuid
    movl %eax, (%rdi)
    movl %ebx, 4(%rdi)
    movl %ecx, 8(%rdi)
    movl %edx, 12(%rdi)
    iretq

enable_interrupts:
    orq $0x200, 16(%rsp)
    iretq

halt:  // STI takes effect after HLT has begun, so an interrupt that is pending now wakes it
    sti
    hlt
    iretq

halt_while:  // RDI = address of a counter; sleeps, unless it is no longer RSI, until an interrupt has been handled
    cmpq %rsi, (%rdi)
    je halt
    iretq

load_page_tables:  // RDI = address of the PML4
    movq %rdi, %cr3
    iretq

read_control:  // RDI = uint64_t[5]: CR0 CR2 CR3 CR4 CR8
    movq %cr0, %rax
    movq %rax, (%rdi)
    movq %cr2, %rax
    movq %rax, 8(%rdi)
    movq %cr3, %rax
    movq %rax, 16(%rdi)
    movq %cr4, %rax
    movq %rax, 24(%rdi)
    movq %cr8, %rax
    movq %rax, 32(%rdi)
    iretq

// RDI = uint64_t[5] as above; only CR2 and CR8 are written, CR8 only if it changes: QEMU 7.2's emulation of SVM ends
// by an assertion when a guest writes it while an interrupt is pending.
write_control:
    movq 8(%rdi), %rax
    movq %rax, %cr2
    movq %cr8, %rax
    cmpq 32(%rdi), %rax
    je 1f
    movq 32(%rdi), %rax
    movq %rax, %cr8
1:  iretq

read_debug:  // RDI = uint64_t[5]: DR0 DR1 DR2 DR3 DR7
    movq %dr0, %rax
    movq %rax, (%rdi)
    movq %dr1, %rax
    movq %rax, 8(%rdi)
    movq %dr2, %rax
    movq %rax, 16(%rdi)
    movq %dr3, %rax
    movq %rax, 24(%rdi)
    movq %dr7, %rax
    movq %rax, 32(%rdi)
    iretq

write_debug:  // RDI = uint64_t[5] as above
    movq (%rdi), %rax
    movq %rax, %dr0
    movq 8(%rdi), %rax
    movq %rax, %dr1
    movq 16(%rdi), %rax
    movq %rax, %dr2
    movq 24(%rdi), %rax
    movq %rax, %dr3
    movq 32(%rdi), %rax
    movq %rax, %dr7
    iretq

triple_fault:  // an exception that no handler can be found for, nor one for that
    lidt empty_idt(%rip)
    ud2

halt_forever:  // nothing but an NMI or an INIT ends it
    cli
1:  hlt
    jmp 1b

// Interrupts.

    // Clobbers RAX, RCX and RDX.
    .macro end_of_interrupt
    xorl %eax, %eax
    cmpb $0, x2apic_enabled(%rip)
    jne 1f
    movabsl %eax, LAPIC_EOI
    jmp 2f
1:  xorl %edx, %edx
    movl $MSR_X2APIC_EOI, %ecx
    wrmsr
2:
    .endm

    .macro enter_interrupt
    pushq %rax
    pushq %rcx
    pushq %rdx
    .endm

    .macro leave_interrupt
    end_of_interrupt
    popq %rdx
    popq %rcx
    popq %rax
    iretq
    .endm

    // Counts in the CPU's own data, found from the stack: HLT may be what was interrupted, so that its depth is
    // not known.
    .macro cpu_interrupt name, counter
    .globl \name
\name:
    enter_interrupt
    movq %rsp, %rax
    andq $-CPU_SIZE, %rax
    incq \counter(%rax)
    leave_interrupt
    .endm

    cpu_interrupt lapic_timer_interrupt, CPU_TIMER_TICKS
    cpu_interrupt ipi_interrupt, CPU_IPIS

    .globl pit_interrupt
pit_interrupt:
    enter_interrupt
    incq pit_ticks(%rip)
    leave_interrupt

    // The line is level triggered: the device must have let go of it before the end of interrupt.
    .macro virtio_interrupt_entry device
virtio_interrupt_\device:
    enter_interrupt
    movq virtio_windows + 8 * \device(%rip), %rcx
    movl VIRTIO_INTERRUPT_STATUS(%rcx), %eax
    movl %eax, VIRTIO_INTERRUPT_ACK(%rcx)
    orl %eax, virtio_causes + 4 * \device(%rip)
    incq virtio_interrupts + 8 * \device(%rip)
    leave_interrupt
    .endm

    .irp device, 0, 1, 2, 3
    virtio_interrupt_entry \device
    .endr

    .globl serial_interrupt
serial_interrupt:
    enter_interrupt
    movl serial_head(%rip), %ecx
    movw $SERIAL_LINE_STATUS, %dx
1:  inb %dx, %al
    testb $1, %al
    jz 2f
    movb $(SERIAL_DATA & 0xff), %dl
    inb %dx, %al
    movb %al, serial_ring(%rcx)
    incb %cl
    movb $(SERIAL_LINE_STATUS & 0xff), %dl
    jmp 1b
2:  movl %ecx, serial_head(%rip)
    leave_interrupt

    .globl spurious_interrupt
spurious_interrupt:  // SDM volume 3 section 10.9: no EOI
    iretq

    .section .rodata
    .balign 8
ring0_table:
    .quad read_msr, write_msr, read_cpuid, enable_interrupts, halt, load_page_tables
    .quad read_control, write_control, read_debug, write_debug, halt_while, triple_fault, halt_forever

empty_idt:
    .word 0
    .quad 0

    .globl virtio_interrupt_table
virtio_interrupt_table:
    .quad virtio_interrupt_0, virtio_interrupt_1, virtio_interrupt_2, virtio_interrupt_3

    .globl trap_table
trap_table:
    .irp vector, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    .quad trap_\vector
    .endr

    .bss
    .balign 8
    .globl panic_vector, panic_error, panic_rip, panic_address
panic_vector:
    .skip 8
panic_error:
    .skip 8
panic_rip:
    .skip 8
panic_address:
    .skip 8
panicking_task:
    .skip 8
    .globl virtio_windows, virtio_interrupts, virtio_causes
virtio_windows:
    .skip 8 * VIRTIO_DEVICES
virtio_interrupts:
    .skip 8 * VIRTIO_DEVICES
virtio_causes:
    .skip 4 * VIRTIO_DEVICES
    .globl pit_ticks, serial_head, serial_ring, x2apic_enabled
x2apic_enabled:
    .skip 8
pit_ticks:
    .skip 8
serial_head:
    .skip 8
serial_ring:
    .skip SERIAL_RING

    .section .note.GNU-stack, "", @progbits
