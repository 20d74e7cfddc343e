#!/bin/bash
# qemu_virtio.sh disk|net IMAGE COMMAND_LINE [SCRATCH [DEVICE_PROPERTIES]]: boots a guest that drives a virtio device on
# QEMU's own. In SCRATCH, `disk` is the disk; the net is a pair of sockets, QEMU's `guest`, and `peer`, which must be there
# already; `qmp` controls QEMU.
# Two CPUs, because QEMU before 8.1 leaves memory barriers out of what it emulates with one, and event indices then lose
# wake-ups.
set -eu
kind=$1
image=$2
command_line="$3 virtio=0xfeb00000 virtio_step=0x200 gsi=16"
scratch=${4:-}
properties=${5:+,$5}
if [ -z "$scratch" ]; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
fi

options=(-smp 2 -M ioapic2=off -global virtio-mmio.force-legacy=false -qmp "unix:$scratch/qmp,server=on,wait=off")
case $kind in
    disk)
        truncate -s 16M "$scratch/disk"
        drive="if=none,id=disk,file=$scratch/disk,format=raw,discard=unmap"
        options+=(-drive "$drive" -device "virtio-blk-device,drive=disk,serial=godwit$properties") ;;
    net)
        sockets="local.type=unix,local.path=$scratch/guest,remote.type=unix,remote.path=$scratch/peer"
        options+=(-netdev "dgram,id=net,$sockets"
                  -device "virtio-net-device,netdev=net,mac=52:54:00:12:34:56$properties") ;;
esac
"$(dirname "$0")/qemu_microvm.sh" "$image" "$command_line" "${options[@]}"
