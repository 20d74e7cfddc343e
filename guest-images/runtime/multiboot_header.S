// Multiboot specification 0.6.96, section 3.1: in the first 8 KiB of the file, 4-byte aligned.
// Flag bit 1 asks for the memory map; the ELF headers give the load addresses.

    .set magic, 0x1badb002
    .set flags, 0x00000002

    .section .multiboot, "a", @progbits
    .balign 4
    .long magic
    .long flags
    .long -(magic + flags)

    .section .note.GNU-stack, "", @progbits
