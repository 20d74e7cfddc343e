// XEN_ELFNOTE_PHYS32_ENTRY (18): the PVH entry point, see the Xen header public/elfnote.h.

    .section .note.pvh, "a", @note
    .balign 4
    .long 4
    .long 8
    .long 18
    .asciz "Xen"
    .quad entry32

    .section .note.GNU-stack, "", @progbits
