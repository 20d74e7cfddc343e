#!/usr/bin/python3
"""Each guest, moved back and forth at random moments while it works, with --verify full; then it checks itself."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from integration import harness  # noqa: E402
from integration.harness import check  # noqa: E402
from support import json_schema  # noqa: E402


def move(bed, here, there, serial, *args, listener=None, name="guest"):
    """Moves the guest; returns the report and its serial port there. The log of the one here is complete
    then."""
    address = (listener or there.listener).address
    report = here.migrate(address, "--verify", "full", *harness.LIMITS, *args, name=name)
    json_schema.validate("migrate", report)
    check(report["result"] == "completed", f"result {report['result']}: {report['reasons']}")
    check(report["digest"]["verified"], "the digest was not verified")
    parts = report["downtime"]
    total = sum(v for v in parts.values() if v is not None)
    check(abs(total - report["downtime_ms"]) < 0.001, f"the parts of the downtime do not add up: {report}")
    while serial.line() is not None:
        pass
    serial.close()
    return report, there.serial(name)


def several_moves(options, image, append, moves, memory="64M", cpus=1, before=None, after=None):
    with harness.Bed(options) as bed:
        for host in (bed.a, bed.b):
            host.listener = host.receive()
        guest = bed.a.run(image, append=append, memory=memory, cpus=cpus)
        serial = guest.serial
        serial.expect("ready")
        here, there = bed.a, bed.b
        for number in range(options.moves or moves):
            # At a random moment: after a random number of answers from the guest.
            for _ in range(bed.random.randrange(1, 6)):
                serial.ask("status")
            if before:
                before(bed, serial, number)
            report, serial = move(bed, here, there, serial)
            if number == 0:
                check(guest.wait() == 0, f"the source ended with {guest.popen.returncode}: {guest.log()}")
                check(there.listener.address in guest.log(), f"no word where the guest went: {guest.log()}")
            if after:
                after(bed, serial, number, report)
            here, there = there, here
        serial.send("finish")
        verdict = serial.expect("PASS")
        print(f"  {image}: {options.moves or moves} moves, {verdict}")


def check_here(_bed, serial, _number, _report):
    serial.check()


def dirty(options):
    seeds = {}

    def mark(bed, serial, number):
        seeds[number] = f"{bed.random.getrandbits(63):x}"
        serial.ask(f"mark {seeds[number]}", "marked")

    def prove(_bed, serial, number, _report):
        proof = serial.ask("proof")
        check(proof["ok"] == "1" and int(proof["seed"], 16) == int(seeds[number], 16), f"proof {proof}, seed {seeds[number]}")

    several_moves(options, "dirty.elf", "fill=32 ws=16 pps=20000 pattern=random zero=10 same=20", 10, "96M",
                  before=mark, after=prove)


def dirty_hotcold(options):
    several_moves(options, "dirty.elf", "fill=48 ws=32 pps=50000 pattern=hotcold", 6, "128M")


def dirty_cpus(options):
    """Neighbouring pages written by several vCPUs at the same time."""
    several_moves(options, "dirty.elf", "cpus=4 fill=32 ws=16 pps=40000 pattern=random zero=10 same=10", 6, "96M", cpus=4,
                  after=check_here)


def large(options):
    """Several vCPUs, and memory on both sides of the hole below 4 GiB."""
    several_moves(options, "dirty.elf", "fill=32 ws=16 pps=20000", 2, "4G", cpus=4)


def stepper(options):
    several_moves(options, "stepper.elf", "ws=16", 10)


def cpustate(options):
    several_moves(options, "cpustate.elf", "", 10)


def ticks(options):
    several_moves(options, "ticks.elf", "", 8)


def ticks_deadline(options):
    several_moves(options, "ticks.elf", "mode=deadline", 6)


def ticks_oneshot(options):
    several_moves(options, "ticks.elf", "mode=oneshot", 4)


def pulse(options):
    several_moves(options, "pulse.elf", "", 6)


def idle(options):
    several_moves(options, "idle.elf", "", 6)


def smp(options):
    several_moves(options, "smp.elf", "", 6, cpus=4, after=check_here)


def smp_x2apic(options):
    several_moves(options, "smp.elf", "x2apic=1", 4, cpus=4, after=check_here)


def smp_16(options):
    """More vCPUs than any host here has CPUs."""
    several_moves(options, "smp.elf", "x2apic=1", 4, cpus=16, after=check_here)


def smp_reset(options):
    """All vCPUs begin anew, whatever they were doing: here, and where they have never been booted."""
    def reset(_bed, serial, _number, _report=None):
        serial.send("reset")
        check(serial.expect("ready")["cpus"] == "4", "not all CPUs came back")
        serial.check()

    for append in ("", "x2apic=1"):
        several_moves(options, "smp.elf", append, 2, cpus=4, before=reset, after=reset)


def streams(options):
    """The same move over several data connections, and over control alone."""
    with harness.Bed(options) as bed:
        for host in (bed.a, bed.b):
            host.listener = host.receive()
        serial = bed.a.run("dirty.elf", append="fill=64 ws=32 pps=20000", memory="128M").serial
        serial.expect("ready")
        here, there = bed.a, bed.b
        for count in (0, 1, 2, 4):
            report, serial = move(bed, here, there, serial, "--streams", count)
            check(report["streams"] == count, f"asked for {count} streams, got {report['streams']}")
            serial.check()
            here, there = there, here
        serial.send("finish")
        serial.expect("PASS")


def serial_bytes(options):
    """Output goes on at the destination without a lost or a doubled byte."""
    with harness.Bed(options) as bed:
        for host in (bed.a, bed.b):
            host.listener = host.receive()
        serial = bed.a.run("pulse.elf", append="print=1 hz=200").serial
        serial.expect("ready")
        here, there = bed.a, bed.b
        text = b""
        for _ in range(options.moves or 4):
            for _ in range(bed.random.randrange(5, 40)):
                serial.expect("beat")
            # Bytes that arrive while the guest moves are still in the socket: read them to their end.
            here.migrate(there.listener.address)
            while serial.line() is not None:
                pass
            text += serial.log
            serial.close()
            serial = there.serial()
            here, there = there, here
        serial.send("finish")
        serial.expect("PASS")
        text += serial.log
        lines = text.decode().splitlines()
        beats = [int(m.group(1)) for m in (re.fullmatch(r"pulse beat n=(\d+) tsc=\d+", line) for line in lines) if m]
        check(beats == list(range(beats[0], beats[0] + len(beats))), f"beats lost or doubled: {beats}")
        strange = [line for line in lines if not re.fullmatch(r"pulse (beat|ready|PASS|status).*", line)]
        check(not strange, f"lines that no guest printed: {strange}")


TESTS = {f.__name__: f for f in (dirty, dirty_hotcold, dirty_cpus, large, stepper, cpustate, ticks, ticks_deadline,
                                 ticks_oneshot, pulse, idle, smp, smp_x2apic, smp_16, smp_reset, streams, serial_bytes)}

if __name__ == "__main__":
    harness.main(TESTS)
