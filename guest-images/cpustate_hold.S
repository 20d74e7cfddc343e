// void cpustate_hold(): loads every register cpustate.cpp prepared, keeps them through two waits, and
// stores what they hold then. Between load and store nothing touches memory through a register, and
// while RSP holds a pattern nothing is pushed (interrupts from CPL 3 switch to the ring-0 stack).

#include "runtime/abi.h"

    .text
    .globl cpustate_hold
cpustate_hold:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, saved_rsp(%rip)

    movl hold_mask(%rip), %eax
    xorl %edx, %edx
    testl %eax, %eax
    jz 1f
    xrstor64 hold_extended(%rip)
    jmp 2f
1:  fxrstor64 hold_extended(%rip)
2:  movq hold_registers + 0(%rip), %rax
    movq hold_registers + 8(%rip), %rbx
    movq hold_registers + 24(%rip), %rdx
    movq hold_registers + 32(%rip), %rsi
    movq hold_registers + 40(%rip), %rdi
    movq hold_registers + 48(%rip), %rbp
    movq hold_registers + 64(%rip), %r8
    movq hold_registers + 72(%rip), %r9
    movq hold_registers + 80(%rip), %r10
    movq hold_registers + 88(%rip), %r11
    movq hold_registers + 96(%rip), %r12
    movq hold_registers + 104(%rip), %r13
    movq hold_registers + 112(%rip), %r14
    movq hold_registers + 120(%rip), %r15
    pushq hold_flags(%rip)
    popfq

    // First wait: RFLAGS and all but RCX and RSP. MOV, LEA and LOOP leave the flags alone. Four times
    // the iterations take about as long as the second wait, whose counter is in memory.
    movq hold_loops(%rip), %rcx
    leaq (, %rcx, 4), %rcx
1:  loop 1b
    pushfq
    popq seen_flags(%rip)

    // Second wait: all sixteen registers.
    movq hold_loops(%rip), %rcx
    movq %rcx, wait_counter(%rip)
    movq hold_registers + 16(%rip), %rcx
    movq hold_registers + 56(%rip), %rsp
1:  decq wait_counter(%rip)
    jnz 1b

    movq %rax, seen_registers + 0(%rip)
    movq %rbx, seen_registers + 8(%rip)
    movq %rcx, seen_registers + 16(%rip)
    movq %rdx, seen_registers + 24(%rip)
    movq %rsi, seen_registers + 32(%rip)
    movq %rdi, seen_registers + 40(%rip)
    movq %rbp, seen_registers + 48(%rip)
    movq %rsp, seen_registers + 56(%rip)
    movq %r8, seen_registers + 64(%rip)
    movq %r9, seen_registers + 72(%rip)
    movq %r10, seen_registers + 80(%rip)
    movq %r11, seen_registers + 88(%rip)
    movq %r12, seen_registers + 96(%rip)
    movq %r13, seen_registers + 104(%rip)
    movq %r14, seen_registers + 112(%rip)
    movq %r15, seen_registers + 120(%rip)
    movq saved_rsp(%rip), %rsp
    pushq $USER_FLAGS_INTERRUPTS
    popfq

    movl hold_mask(%rip), %eax
    xorl %edx, %edx
    testl %eax, %eax
    jz 1f
    xsave64 seen_extended(%rip)
    jmp 2f
1:  fxsave64 seen_extended(%rip)
    // C++ expects empty x87 registers and default rounding.
2:  fninit
    ldmxcsr default_mxcsr(%rip)
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

    .section .rodata
    .balign 4
default_mxcsr:
    .long 0x1f80

    .bss
    .balign 64
    .globl hold_registers, hold_flags, hold_loops, hold_mask, hold_extended
    .globl seen_registers, seen_flags, seen_extended
hold_extended:
    .skip 4096
seen_extended:
    .skip 4096
hold_registers:
    .skip 128
seen_registers:
    .skip 128
hold_flags:
    .skip 8
seen_flags:
    .skip 8
hold_loops:
    .skip 8
hold_mask:
    .skip 8
wait_counter:
    .skip 8
saved_rsp:
    .skip 8

    .section .note.GNU-stack, "", @progbits
