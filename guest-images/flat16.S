// A flat 16-bit image: loaded at 0x7c00, entered in real mode at CS:IP = 0:0x7c00. Prints one line on
// the serial port, polled, and leaves through the exit port. Ends like a boot sector, so that a PC's
// firmware can start it too.

#include "runtime/abi.h"

    .code16
    .section .text
    .globl start
start:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    movw $text, %si
next:
    lodsb
    testb %al, %al
    jz done
    movb %al, %bl
    movw $SERIAL_LINE_STATUS, %dx
wait:
    inb %dx, %al
    testb $0x20, %al
    jz wait
    movb %bl, %al
    movw $SERIAL_DATA, %dx
    outb %al, %dx
    jmp next
done:
    movb $EXIT_PASS, %al
    outb %al, $EXIT_PORT
stop:
    hlt
    jmp stop

text:
    .asciz "flat16 PASS\n"

    .org 510
    .word 0xaa55

    .section .note.GNU-stack, "", @progbits
