#!/usr/bin/python3
"""Guests that misbehave (guest-images/hostile.cpp): their process survives, a neighbour notices nothing, `status` says
what happened, and they can be moved all the while."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from integration import harness  # noqa: E402
from integration.harness import check  # noqa: E402
from support import json_schema  # noqa: E402

MAX_LOG = 2000  # bytes: a guest that does this for weeks must not fill a disk


class Misbehaving:
    """A guest in one mode on host a, beside a decent neighbour, and a receiver on host b."""

    def __init__(self, options, mode, *args):
        self.bed = harness.Bed(options)
        self.mode = mode
        self.args = args

    def __enter__(self):
        bed = self.bed.__enter__()
        self.listener = bed.b.receive()
        self.neighbour = bed.a.run("hello.elf", name="neighbour", append="wait=1")
        self.neighbour.serial.expect("ready")
        self.guest = bed.a.run("hostile.elf", *self.args, append=f"mode={self.mode} beat_hz=0")
        self.guest.serial.expect("ready")
        return self

    def __exit__(self, *failure):
        return self.bed.__exit__(*failure)

    def wait_counted(self, serial, counter):
        """Until the guest has counted on."""
        before = int(serial.ask("status")[counter])
        while int(serial.ask("status")[counter]) <= before:
            pass

    def status(self, host):
        status = host.status()
        json_schema.validate("status", status)
        check(status["state"] == "running", f"{self.mode}: {status}")
        return status

    def nobody_else_notices(self):
        self.neighbour.serial.ask("status")
        for process in (self.guest, self.listener):
            check(len(process.log()) < MAX_LOG, f"the guest fills our log: {process.log()[:MAX_LOG]}")


def move(options, mode, counter, kinds):
    """Back and forth while it misbehaves. `kinds`: of the accesses that `status` must have counted."""
    with Misbehaving(options, mode) as scene:
        bed, serial = scene.bed, scene.guest.serial
        scene.wait_counted(serial, counter)
        for kind in kinds:
            check(scene.status(bed.a)["unassigned_accesses"][kind] > 0, f"no {kind} was counted")
            check(f" {kind.removesuffix('s')} " in bed.a.call("status", "guest").stdout, "the text does not say so")
        bed.a.migrate(scene.listener.address, *harness.LIMITS, "--verify", "full")
        serial = bed.b.serial()
        serial.check()
        scene.wait_counted(serial, counter)
        for kind in kinds:
            check(scene.status(bed.b)["unassigned_accesses"][kind] > 0, f"no {kind} was counted after the move")
        scene.nobody_else_notices()
        serial.send("finish")
        serial.expect("PASS")


def ports(options):
    move(options, "ports", "accesses", ("ports",))


def mmio(options):
    move(options, "mmio", "passes", ("memory",))


def strings(options):
    move(options, "strings", "rounds", ("ports", "memory"))


def storm(options):
    move(options, "storm", "sent", ())


def pagetables(options):
    move(options, "pagetables", "rounds", ())


def beside_devices(options):
    """Every window of a virtio device that is not there, beside those that are."""
    with Misbehaving(options, "mmio", "--console", "null", "--rng") as scene:
        scene.wait_counted(scene.guest.serial, "passes")
        scene.status(scene.bed.a)
        scene.guest.serial.check()
        scene.nobody_else_notices()


def every_port(options):
    """All of them in one pass, with every size but where it would end the machine."""
    with harness.Bed(options) as bed:
        guest = bed.a.run("hostile.elf", append="mode=ports stride=1")
        guest.serial.expect("ready")
        while guest.serial.ask("status")["passes"] == "0":
            time.sleep(0.2)  # each question costs the guest time
        check(bed.a.status()["unassigned_accesses"]["ports"] > 300000, f"{bed.a.status()}")
        guest.serial.send("finish")
        guest.serial.expect("PASS")
        check(guest.wait() == harness.PASS_STATUS, guest.log())


def triple_fault(options):
    """A reset each; the guest goes on for ever, and can be moved between two of them."""
    with Misbehaving(options, "triple") as scene:
        bed = scene.bed
        for _ in range(3):
            scene.guest.serial.expect("ready")
        status = scene.status(bed.a)
        check(status["triple_faults"] >= 3 and status["resets"] >= 3, f"{status}")
        check("triple faults" in bed.a.call("status", "guest").stdout, "the text does not say so")
        bed.a.migrate(scene.listener.address, *harness.LIMITS, "--verify", "full")
        serial = bed.b.serial()
        for _ in range(3):
            serial.expect("ready")
        check(scene.status(bed.b)["triple_faults"] > 0, f"{bed.b.status()}")
        scene.nobody_else_notices()
        bed.b.call("stop", "guest")


def halted_for_ever(options):
    """HLT with interrupts off: it stands still, and yet it is paused, moved and stopped like any other."""
    with Misbehaving(options, "halt") as scene:
        bed = scene.bed
        scene.guest.serial.send("status")  # before it halts, or never answered
        harness.wait_for(lambda: idle(scene.guest.pid))
        scene.status(bed.a)
        bed.a.call("pause", "guest")
        check(bed.a.status()["state"] == "paused", f"{bed.a.status()}")
        bed.a.call("resume", "guest")
        bed.a.migrate(scene.listener.address, *harness.LIMITS, "--verify", "full")
        scene.status(bed.b)
        scene.nobody_else_notices()
        bed.b.call("stop", "guest")


def idle(pid):
    """Whether the process has used no CPU time in a quarter of a second."""

    def used():
        words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(words[11]) + int(words[12])

    before = used()
    time.sleep(0.25)
    return used() == before


TESTS = {f.__name__: f for f in (ports, mmio, strings, storm, pagetables, beside_devices, every_port, triple_fault,
                                 halted_for_ever)}

if __name__ == "__main__":
    harness.main(TESTS)
