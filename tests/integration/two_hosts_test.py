#!/usr/bin/python3
"""Guests moved between two emulated hosts whose TSCs differ: what a guest knows of time goes on."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from integration import amdv_bed, harness  # noqa: E402
from integration.harness import check  # noqa: E402
from integration.moves_test import move  # noqa: E402
from support import amdv_overlay, amdv_tsc  # noqa: E402

BUILD = f"{amdv_overlay.PLACE}/build"
TC = f"{BUILD}/bin/tc"  # by its path: the shell there takes busybox's own, which knows no netem
DELAY = "delay 20ms loss 1%"


def there_and_back(bed, image, append, moves=2, memory="64M", shape=""):
    """Moves a guest that judges its clocks; `shape` is what netem does to the link, on both sides."""
    for host in (bed.a, bed.b):
        host.listener = host.receive()
        if shape:
            host.shell(f"{TC} qdisc replace dev eth0 root netem {shape}")
    guest = bed.a.run(image, append=append, memory=memory)
    serial = guest.serial
    ready = serial.expect("ready")
    here, there = bed.a, bed.b
    for number in range(bed.options.moves or moves):
        serial.ask("status")
        report, serial = move(bed, here, there, serial)
        # The guest fails by itself when its TSC or kvmclock goes back, or when they part.
        after = serial.ask("status")
        serial.check()
        drift = f", kvmclock is {after['kvmclock_drift_us']} us off the TSC" if "kvmclock_drift_us" in after else ""
        print(f"  {image} {here.name} -> {there.name}: downtime {report['downtime_ms']:.0f} ms, the guest's gap "
              f"{float(after['gap_us']) / 1000:.1f} ms, steps back {after['back_steps']}{drift}", flush=True)
        check(after["back_steps"] == "0", f"the TSC went back: {after}")
        if number == 0:
            check(guest.wait() == 0, f"the source ended with {guest.popen.returncode}: {guest.log()}")
        here, there = there, here
    if shape:
        for host in (bed.a, bed.b):
            host.shell(f"{TC} qdisc del dev eth0 root")
    serial.send("finish")
    serial.expect("PASS")
    return ready


def ticks(bed):
    there_and_back(bed, "ticks.elf", "mode=all")


def pulse(bed):
    there_and_back(bed, "pulse.elf", "")


def cpustate(bed):
    there_and_back(bed, "cpustate.elf", "")


def ticks_over_a_bad_link(bed):
    there_and_back(bed, "ticks.elf", "mode=all", shape=DELAY)


def kernel_tls(bed):
    """The kernel encrypts what each side sends; what it sends is right to the last page."""
    tls = ("--tls-dir", f"{BUILD}/tls")
    for host in (bed.a, bed.b):
        host.listener = host.receive(*tls)
    for streams in (0, 1, 2):
        serial = bed.a.run("dirty.elf", append="fill=8 ws=2 pps=200", memory="32M").serial
        serial.expect("ready")
        report = bed.a.migrate(bed.b.listener.address, "--verify", "full", "--streams", streams, *harness.LIMITS, *tls)
        check(report["digest"]["verified"] and report["tls"]["ktls_send"], f"{report['tls']}")
        log = bed.b.listener.wait_line(r"receiving guest .* encrypted (\S+.*), decrypted")
        check(log.group(1) == "by the kernel", f"the destination encrypts {log.group(1)}")
        print(f"  {streams} streams: {report['tls']}", flush=True)
        serial = bed.b.serial()
        serial.check()
        serial.send("finish")
        serial.expect("PASS")


def kernel_tls_lost_after_commit(bed):
    """The source gives up a connection that the kernel encrypts, in its sandbox, and learns what became of its guest."""
    tls = ("--tls-dir", f"{BUILD}/tls")
    bed.b.listener = bed.b.receive("--fault", "cut@started", *tls)
    serial = bed.a.run("dirty.elf", append="fill=8 ws=2 pps=200", memory="32M").serial
    serial.expect("ready")
    report = bed.a.migrate(bed.b.listener.address, *harness.LIMITS, *tls)
    check(report["result"] == "completed" and report["tls"]["ktls_send"], f"{report}")
    serial = bed.b.serial()
    serial.check()
    serial.send("finish")
    serial.expect("PASS")


def tsc_differ(bed):
    """What the other tests stand on: a guest that kept the TSC of its host would see it jump."""
    tsc = [int(host.shell(f"{BUILD}/bin/host_tsc")) for host in (bed.a, bed.b)]
    khz = amdv_tsc.tsc_khz()
    seconds = (tsc[1] - tsc[0]) / khz / 1000
    print(f"  the TSC of host a shows {tsc[0]}, of host b {tsc[1]}: {seconds:.1f} s apart")
    check(abs(seconds) >= 60, "the hosts' TSCs are less than 60 s apart")


TESTS = {f.__name__: f for f in (tsc_differ, ticks, pulse, cpustate, ticks_over_a_bad_link, kernel_tls,
                                  kernel_tls_lost_after_commit)}

if __name__ == "__main__":
    amdv_bed.main(TESTS)
