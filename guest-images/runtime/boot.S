// From the boot protocol's 32-bit entry to C++ at CPL 3. PVH and multiboot 1 enter alike: protected
// mode, flat segments, paging off, interrupts off, EBX = boot information (PVH ABI "hvm_start_info";
// multiboot specification section 3.2). Everything that does not need ring 0 is left to user_main.
// Other CPUs come in by the trampoline and join at start_long_mode.

#include "abi.h"

    .section .text.boot, "ax", @progbits
    .code32
    .globl entry32
entry32:
    cld
    movl $ring0_stack_top, %esp
    movl %eax, boot_magic
    movl %ebx, boot_address

    movl $0x80000000, %eax
    cpuid
    cmpl $0x80000001, %eax
    jb no_long_mode
    movl $0x80000001, %eax
    cpuid
    btl $29, %edx
    jnc no_long_mode

    movl $CR4_PAE_OSFXSR_OSXMMEXCPT, %esi
    movl $1, %eax
    cpuid
    btl $26, %ecx
    jnc 1f
    orl $CR4_OSXSAVE, %esi
1:  xorl %eax, %eax
    cpuid
    cmpl $7, %eax
    jb 2f
    movl $7, %eax
    xorl %ecx, %ecx
    cpuid
    btl $0, %ebx
    jnc 2f
    orl $CR4_FSGSBASE, %esi
2:  movl %esi, enabled_cr4

    movl $task_state, %eax
    movw %ax, gdt_task_states + 2
    shrl $16, %eax
    movb %al, gdt_task_states + 4
    movb %ah, gdt_task_states + 7

start_long_mode:
    movl enabled_cr4, %eax
    movl %eax, %cr4
    // SDM volume 3 section 9.8.5: PAE and CR3 first, then EFER.LME, then CR0.PG.
    movl page_tables, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl $CR0_PE_MP_ET_NE_WP_PG, %eax
    movl %eax, %cr0
    lgdt gdt_pointer
    ljmp $KERNEL_CODE, $entry64

no_long_mode:
    movl $workload_name, %esi
    call print32
    movl $no_long_mode_text, %esi
    call print32
    movb $EXIT_FAIL, %al
    outb %al, $EXIT_PORT
1:  hlt
    jmp 1b

print32:
    movw $SERIAL_LINE_STATUS, %dx
1:  inb %dx, %al
    testb $0x20, %al
    jz 1b
    lodsb
    testb %al, %al
    jz 2f
    movw $SERIAL_DATA, %dx
    outb %al, %dx
    jmp print32
2:  ret

    .code64
entry64:
    movl $KERNEL_DATA, %eax
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs

    movq starting_cpu, %rdi
    leaq CPU_SIZE(%rdi), %rsp
    movl CPU_TASK_SELECTOR(%rdi), %eax
    ltr %ax
    lidt idt_pointer

    movl enabled_cr4, %eax
    btl $18, %eax
    jnc 1f
    movl $0xd, %eax
    xorl %ecx, %ecx
    cpuid
    andl $XCR0_X87_SSE_AVX_AVX512, %eax
    xorl %edx, %edx
    xorl %ecx, %ecx
    xsetbv
    movl %eax, enabled_xcr0

    // Interrupts stay off until there is an IDT and a LAPIC that is on. RDI = the CPU; the stack is as after
    // a call.
1:  pushq $USER_DATA
    pushq CPU_USER_STACK(%rdi)
    pushq $USER_FLAGS
    pushq $USER_CODE
    pushq CPU_ENTRY(%rdi)
    iretq

    // Copied to a page below 1 MiB, where a start-up IPI lets a CPU begin in real mode with CS:IP at the
    // page's first byte (SDM volume 3 section 8.4.3).
    .code16
    .globl trampoline, trampoline_end
trampoline:
    cli
    movw %cs, %ax
    movw %ax, %ds
    lgdtl trampoline_gdt_pointer - trampoline
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $KERNEL_CODE_32, $1f
trampoline_gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
trampoline_end:

    .code32
1:  movl $KERNEL_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    jmp start_long_mode

    .section .rodata
no_long_mode_text:
    .asciz " FAIL reason=no_long_mode\n"

    .data
    .balign 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0x00cff3000000ffff
    .quad 0x00affb000000ffff
    .quad 0x00cf9b000000ffff
    .globl gdt_task_states
gdt_task_states:
    .word task_state_end - task_state - 1, 0
    .byte 0, 0x89, 0, 0
    .quad 0
    .skip 16 * (MAX_CPUS - 1)
gdt_end:

gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
idt_pointer:
    .word 16 * 256 - 1
    .quad idt

    .globl boot_magic, boot_address, enabled_xcr0, page_tables, starting_cpu
    .balign 8
boot_magic:
    .long 0
boot_address:
    .long 0
enabled_xcr0:
    .quad 0
enabled_cr4:
    .quad 0
page_tables:  // what a CPU that starts loads into CR3; below 4 GiB
    .quad boot_pml4
starting_cpu:  // CPUs start one at a time
    .quad boot_cpu

    // An I/O bitmap of zero bits (SDM volume 1 section 19.5.2) opens every port to CPL 3.
    .balign 128
task_state:
    .long 0
    .quad ring0_stack_top
    .skip 24
    .quad fault_stack_top
    .skip 58
    .word bitmap - task_state
bitmap:
    .skip 8192
    .byte 0xff
task_state_end:

    .balign CPU_SIZE
    .globl boot_cpu
boot_cpu:
    .quad 0, 0, user_main, user_stack_top - 8
    .long TASK_STATES
    .skip CPU_SIZE - 36
ring0_stack_top:

    // Identity map of the first 4 GiB in 2 MiB pages: a loader may put boot information anywhere there.
    .balign 4096
    .globl boot_pml4
boot_pml4:
    .quad boot_pdpt + 7
    .skip 4096 - 8
boot_pdpt:
    .quad boot_pd + 7, boot_pd + 4096 + 7, boot_pd + 8192 + 7, boot_pd + 12288 + 7
    .skip 4096 - 32
boot_pd:
    .set block, 0
    .rept 2048
    .quad block + 0x87
    .set block, block + 0x200000
    .endr

    .bss
    .balign 4096
    .globl idt
idt:
    .skip 16 * 256
    .skip 4096
fault_stack_top:
    .skip 65536
user_stack_top:
    .skip 16384
    .globl panic_stack_top
panic_stack_top:

    .section .note.GNU-stack, "", @progbits
