#!/bin/bash
# qemu_microvm.sh IMAGE [COMMAND_LINE [QEMU_OPTION...]]: boots a guest image under emulation and succeeds if the guest
# passes. Standard input goes to the guest's serial port, its output to standard output.
set -u
image=$1
command_line=${2:-}
shift $(($# < 2 ? $# : 2))

if ! command -v qemu-system-x86_64 > /dev/null; then
    echo "skipped: qemu-system-x86_64 is not installed"
    exit 77
fi

arguments=(-accel tcg -cpu max -m 64 -nodefaults -no-user-config -display none -no-reboot
           -serial stdio -device "isa-debug-exit,iobase=0xf4,iosize=4")
case $image in
    *.elf) arguments+=(-M microvm -kernel "$image" -append "$command_line") ;;
    *.bin) arguments+=(-M pc -drive "file=$image,format=raw,snapshot=on") ;;
esac

qemu-system-x86_64 "${arguments[@]}" "$@"
status=$?
# isa-debug-exit ends QEMU with (value << 1) | 1, and guests write 16 when they pass.
if [ $status -ne 33 ]; then
    echo "exit status $status, wanted 33"
    exit 1
fi
