#!/usr/bin/env python3
"""Boots the Linux guest under emulation, on another machine model than ours with every virtio device, and drives its line
protocol: no KVM needed."""

import argparse
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from guests import disk_image, proof  # noqa: E402
from integration import harness  # noqa: E402
from integration.harness import Failure, check  # noqa: E402
from support import amdv_host, amdv_tsc, linux_guest  # noqa: E402

DISK_MIB = 8
SEED = 0x7F4A7C159E3779B9


def start(image, disk, port):
    """QEMU with the guest; its serial port is the other end of `port`."""
    devices = ("isa-debug-exit,iobase=0xf4,iosize=4", "virtio-blk-device,drive=disk", "virtio-net-device,netdev=net",
               "virtio-rng-device", "virtio-serial-device", "virtconsole,chardev=console", "virtio-balloon-device")
    words = " ".join((f"{linux_guest.CONSOLE} tsc=reliable tsc_early_khz={amdv_tsc.tsc_khz()}",
                      "godwit.ip=10.0.2.15/24 godwit.gateway=10.0.2.2 godwit.cpu=1"))
    return subprocess.Popen(
        ["qemu-system-x86_64", "-M", "microvm,acpi=on", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2",
         "-m", "256", "-nodefaults", "-display", "none", "-no-reboot", "-chardev", f"socket,id=serial,fd={port.fileno()}",
         "-serial", "chardev:serial", "-kernel", image.kernel, "-initrd", image.initrd, "-append", words,
         "-drive", f"if=none,id=disk,file={disk},format=raw", "-netdev", "user,id=net", "-chardev", "null,id=console",
         *(word for device in devices for word in ("-device", device))],
        pass_fds=[port.fileno()], preexec_fn=amdv_host.end_with_parent)


def drive(serial):
    """Every command; what the guest says at its end."""
    print(f"boot {serial.expect('boot')}, ready {serial.expect('ready')}")
    serial.ask("proof", "error")
    serial.ask(f"mark {SEED:x}", "marked")
    for _ in range(3):
        before = serial.ask("status")
        serial.check()
    answer = serial.ask("proof")
    check(int(answer["hash"], 16) == proof.proof_hash(SEED) and answer["ok"] == "1", f"the proof is wrong: {answer}")
    serial.ask("nonsense", "error")
    serial.send("finish")
    verdict = serial.expect("PASS")
    for counter in ("ticks", "mem_writes", "disk_acked", "cpu_rounds", "rng_bytes"):
        check(int(verdict[counter]) > int(before[counter]), f"{counter} stands still: {verdict}")
    return verdict


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, required=True)
    options = parser.parse_args()
    reason = amdv_host.why_not()
    try:
        image = None if reason else linux_guest.Image(options.build)
    except linux_guest.Unavailable as unavailable:
        reason = unavailable
    if reason:
        print(f"skipped: {reason}")
        sys.exit(harness.SKIP)
    with tempfile.NamedTemporaryFile() as disk:
        disk.truncate(DISK_MIB << 20)
        ours, theirs = socket.socketpair()
        qemu = start(image, disk.name, theirs)
        theirs.close()
        try:
            verdict = drive(harness.Serial("the guest", ours))
            check(qemu.wait(harness.DEADLINE) == harness.PASS_STATUS, f"QEMU ended with {qemu.returncode}")
            fault = disk_image.fault(disk.name, int(verdict["disk_acked"]), (DISK_MIB << 20) // disk_image.BLOCK_BYTES)
            check(not fault, fault)
        except Failure as failure:
            sys.exit(f"FAILED: {failure}")
        finally:
            qemu.kill()
            qemu.wait()
    print(verdict)


if __name__ == "__main__":
    main()
