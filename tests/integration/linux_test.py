#!/usr/bin/python3
"""The Linux guest on emulated hosts: it boots, restarts, powers off, and moves with its clocks, in one host and between two
whose TSCs differ."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from integration import amdv_bed, harness  # noqa: E402
from integration.harness import PASS_STATUS, check  # noqa: E402
from integration.moves_test import move  # noqa: E402
from support import linux_guest  # noqa: E402

# Of the CPU time that the host itself took to boot, emulated too: from the start of vmm to the first word of the initramfs.
BOOT_RATIO = 2
MEMORY = "192M"
# QEMU's emulation lets XSETBV of a guest pass by KVM, which knows no XCR0 but 1 then, and CPUID shows an area of that size:
# the kernel would warn.
PARAMETERS = f"{linux_guest.CONSOLE} noxsave"


def start(host, parameters="", cpus=1, image="vmlinux", extra=()):
    """A guest that is ready, with what its boot took."""
    begin = host.machine.cpu_seconds()
    guest = host.run(f"linux/{image}", "--initrd", host.bed.guests / "linux/initrd.cpio", *extra, memory=MEMORY, cpus=cpus,
                     append=f"{PARAMETERS} {parameters}")
    kernel = guest.serial.expect("boot")["up_s"]
    took = host.machine.cpu_seconds() - begin
    ready = guest.serial.expect("ready")
    print(f"  {image}, {cpus} vCPUs: initramfs after {took:.1f} s of CPU (the host: {host.machine.boot_cpu_seconds:.1f}), {kernel} s on the kernel's clock; {ready}")
    allowed = BOOT_RATIO * host.machine.boot_cpu_seconds
    check(took <= allowed, f"the initramfs began after {took:.1f} s of CPU, and {allowed:.1f} s are allowed")
    check(ready["cpus"] == str(cpus), f"{cpus} vCPUs, but {ready}")
    check(ready["clock"] == "kvm-clock", f"{ready}")
    check(ready["steal"] == ready["pv_eoi"] == "1", f"{ready}")
    return guest


def boots_and_powers_off(bed):
    guest = start(bed.a, image="vmlinuz")
    guest.serial.check()
    guest.serial.send("poweroff")
    check(guest.wait() == 0, f"power-off ended vmm with {guest.popen.returncode}: {guest.log()}")


def restarts(bed):
    guest = start(bed.a)
    guest.serial.send("reset")
    guest.serial.expect("boot")
    guest.serial.expect("ready")
    guest.serial.check()
    guest.serial.send("finish")
    guest.serial.expect("PASS")
    check(guest.wait() == PASS_STATUS, f"PASS ended vmm with {guest.popen.returncode}: {guest.log()}")


def there_and_back(bed, guest, moves=2, at_last=lambda: None):
    """Moves a guest that tells of every tenth tick, and does so once. It checks itself after each move, and after
    `at_last` it ends; its last words."""
    serial = guest.serial
    serials = [serial]
    here, there = bed.a, bed.b
    for number in range(bed.options.moves or moves):
        before = serial.ask("status")
        seed = f"{bed.random.getrandbits(63):x}"
        serial.ask(f"mark {seed}", "marked")
        report, serial = move(bed, here, there, serial)
        serials.append(serial)
        after = serial.ask("status")
        serial.check()
        proof = serial.ask("proof")
        check(proof["ok"] == "1" and int(proof["seed"], 16) == int(seed, 16), f"the marked pages changed: {proof}")
        check(int(after["ticks"]) > int(before["ticks"]), f"no tick since the move: {before}, {after}")
        check(int(after["steal_ms"]) >= int(before["steal_ms"]), f"steal time went back: {before}, {after}")
        print(f"  {here.name} -> {there.name}: downtime {report['downtime_ms']:.0f} ms, the guest's gap "
              f"{float(after['gap_us']) / 1000:.1f} ms, TSC {after['tsc_drift_us']} us off CLOCK_MONOTONIC "
              f"(before: {before['tsc_drift_us']})", flush=True)
        if number == 0:
            check(guest.wait() == 0, f"the source ended with {guest.popen.returncode}: {guest.log()}")
        here, there = there, here
    at_last()
    serial.send("finish")
    verdict = serial.expect("PASS")
    harness.wait_for(lambda: not here.json("list")["guests"])
    # A line may begin here and end there.
    text = b"".join(port.log for port in serials)
    told = [int(number) for number in re.findall(rb"^linux tick n=(\d+)\r?$", text, re.M)]
    check(told == list(range(10, 10 * len(told) + 1, 10)), f"ticks were lost or repeated: {told}")
    print(f"  {len(told)} of {10 * len(told)} ticks told, each once")
    return verdict


def moves(bed, cpus):
    for host in (bed.a, bed.b):
        host.listener = host.receive()
    there_and_back(bed, start(bed.a, "godwit.cpu=1 godwit.mem=16 godwit.pps=500 godwit.print=10", cpus))


def moves_in_one_host(bed):
    amdv_bed.on_one_host(bed)
    moves(bed, 2)


def moves_between_hosts(bed):
    moves(bed, 1)


TESTS = {f.__name__: f for f in (boots_and_powers_off, restarts, moves_in_one_host, moves_between_hosts)}

if __name__ == "__main__":
    amdv_bed.main(TESTS, linux=True)
