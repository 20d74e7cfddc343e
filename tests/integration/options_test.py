#!/usr/bin/python3
"""Options of run, receive and migrate that no other test is about: each does what --help says, and no more."""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from integration import harness  # noqa: E402
from integration.handover_test import Move, Scene  # noqa: E402
from integration.harness import check  # noqa: E402
from integration.proxy import Proxy  # noqa: E402

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")
# Writes its 4 MiB several times in the half second that 8M, the bandwidth below, takes for them.
BUSY = "fill=4 ws=4 pps=50000 pattern=random"


def codes(report):
    return {reason["code"] for reason in report["reasons"]}


def start(host, *args, image="hello.elf", append="wait=1", **settings):
    guest = host.run(image, *args, append=append, **settings)
    guest.serial.expect("ready")
    return guest


def receive_once(options):
    """One guest, whose exit status becomes the listener's."""
    with harness.Bed(options) as bed:
        listener = bed.b.receive("--once")
        start(bed.a)
        bed.a.migrate(listener.address)
        start(bed.a, name="other")
        report = bed.a.migrate(listener.address, name="other", status=1)
        check("--once" in report["reasons"][0]["what"], f"{report['reasons']}")
        serial = harness.Serial(bed.b.serial_path("guest")).connect()
        serial.send("finish")
        serial.expect("PASS")
        check(listener.wait() == harness.PASS_STATUS, listener.log())


def receive_once_after_a_failure(options):
    """An attempt that brought no guest is not the one."""
    with Scene(options) as scene:
        once = scene.bed.b.receive("--once", name="once")
        report = scene.bed.a.migrate(once.address, "--timeout", "1ms", status=1)
        check(codes(report) == {"timeout"}, f"{report['reasons']}")
        scene.bed.a.migrate(once.address)
        scene.bed.b.call("stop", "guest")
        check(once.wait() == 0, once.log())


def receive_once_waits_for_the_source(options):
    """Its guest has come and ended before the source knows that it had begun: somebody must be there to be asked."""
    with Scene(options) as scene:
        once = scene.bed.b.receive("--once", name="once")
        link = Proxy(once.address)
        scene.gate.hold_at("destination", "started")
        move = Move(scene.bed.a, link.address)
        scene.gate.wait_held("destination", "started")
        link.down = True
        link.cut()
        scene.gate.release("destination", "started")
        serial = harness.Serial(scene.bed.b.serial_path("once")).connect()
        serial.send("finish")
        serial.expect("PASS")
        harness.wait_for(lambda: not harness.children(once.pid))
        check(not once.ended, once.log())
        link.down = False
        check(move.result() == 0, move.done.stdout + move.done.stderr)
        check(once.wait() == harness.PASS_STATUS, once.log())
        link.close()


def signal_stops_what_once_received(options):
    with harness.Bed(options) as bed:
        listener = bed.b.receive("--once")
        start(bed.a)
        bed.a.migrate(listener.address)
        os.kill(listener.pid, signal.SIGTERM)
        check(listener.wait() == 0, listener.log())
        check(not bed.b.json("list")["guests"], "the guest was left behind")


def guests_outlive_their_listener(options):
    with harness.Bed(options) as bed:
        listener = bed.b.receive()
        start(bed.a)
        bed.a.migrate(listener.address)
        os.kill(listener.pid, signal.SIGTERM)
        check(listener.popen.wait(harness.DEADLINE) == 0, listener.log())
        serial = harness.Serial(bed.b.serial_path("guest")).connect()
        serial.ask("status")
        bed.b.call("stop", "guest")


def receive_name(options):
    """A guest can move to where its name is taken, for example to its own host."""
    with harness.Bed(options) as bed:
        listener = bed.a.receive("--name", "renamed", name="renamed")
        guest = start(bed.a)
        bed.a.migrate(listener.address)
        check(guest.wait() == 0, guest.log())
        check(bed.a.status("renamed")["name"] == "renamed", f"{bed.a.status('renamed')}")
        check([entry["name"] for entry in bed.a.json("list")["guests"]] == ["renamed"], f"{bed.a.json('list')}")
        bed.a.call("stop", "renamed")


def serial_in_use(options):
    """A listener has one serial port to give; with nothing to share each guest gets one."""
    with harness.Bed(options) as bed:
        listener = bed.b.receive()
        start(bed.a)
        start(bed.a, name="other")
        bed.a.migrate(listener.address)
        report = bed.a.migrate(listener.address, name="other", status=1)
        check(codes(report) == {"serial_in_use"}, f"{report['reasons']}")
        bed.b.call("stop", "guest")
        bed.a.migrate(listener.address, name="other")  # it is free again
        bed.b.call("stop", "other")
        null = bed.b.vmm("receive", "--listen", "tcp:127.0.0.1:0", "--serial", "null")
        address = null.wait_line(r"(tcp:127\.0\.0\.1:\d+)").group(1)
        for name in ("one", "two"):
            start(bed.a, name=name)
            bed.a.migrate(address, name=name)
            check(bed.b.status(name)["state"] == "running", f"{bed.b.status(name)}")


def timeout(options):
    with harness.Bed(options) as bed:
        listener = bed.b.receive()
        guest = start(bed.a, image="dirty.elf", append=BUSY)
        report = bed.a.migrate(listener.address, "--max-bandwidth", "1M", "--timeout", "300ms", status=1)
        check(codes(report) == {"timeout"}, f"{report['reasons']}")
        check(report["total_ms"] >= 300, f"it gave up after {report['total_ms']} ms")
        check(report["downtime_ms"] is None, f"the guest was paused: {report}")
        guest.serial.check()
        bed.a.migrate(listener.address, "--timeout", "60s", "--max-pause", "60s")


def max_bandwidth(options):
    """Holds for the rounds in which the guest runs."""
    with harness.Bed(options) as bed:
        listener = bed.b.receive()
        start(bed.a, image="dirty.elf", append="fill=16 ws=1 pps=10 pattern=random")
        report = bed.a.migrate(listener.address, "--max-bandwidth", "32M")
        first = report["rounds"][0]
        check(first["bytes"] >= 16 << 20, f"the memory was not sent in the first round: {first}")
        rate = first["bytes"] / first["ms"] * 1000
        check(rate <= (32 << 20) * 1.25, f"{rate / (1 << 20):.1f} MiB/s: {first}")


def on_stall(options):
    """A guest that writes faster than the link takes it stays, or moves with the pause that was allowed."""
    with harness.Bed(options) as bed:
        listener = bed.b.receive()
        guest = start(bed.a, image="dirty.elf", append="fill=16 ws=16 pps=50000 pattern=random")
        # Limited like this, what is owed never shrinks; without the limit it takes some milliseconds to send.
        slow = ("--max-bandwidth", "32M", "--max-downtime", "1ms", "--max-pause", "60s")
        report = bed.a.migrate(listener.address, *slow, "--on-stall", "abort", status=1)
        check(codes(report) == {"limit"}, f"{report['reasons']}")
        check(report["downtime_ms"] is None, f"the guest was paused: {report}")
        guest.serial.check()
        bed.a.migrate(listener.address, *slow, "--on-stall", "switch", "--verify", "full")
        harness.Serial(bed.b.serial_path("guest")).connect().check()


def state_dir_and_control(options):
    """Records and sockets where they were asked for, and nowhere else."""
    with harness.Bed(options) as bed:
        places = {}
        for host in (bed.a, bed.b):
            records = host.directory / "records"
            records.mkdir(mode=0o700)
            places[host] = (records, host.directory / "control.sock")

        def arguments(host):
            return ("--state-dir", places[host][0], "--control", places[host][1])

        listener = bed.b.receive(*arguments(bed.b))
        guest = start(bed.a, *arguments(bed.a))
        control = str(places[bed.a][1])
        check(bed.a.json("status", control)["name"] == "guest", "the socket is another guest's")
        bed.a.migrate(listener.address, name=control)
        check(guest.wait() == 0, guest.log())
        there = str(places[bed.b][1])
        check(bed.b.json("status", there)["state"] == "running", "it does not run there")
        for host, role in ((bed.a, "source"), (bed.b, "destination")):
            roles = {path.suffix for path in places[host][0].iterdir()}
            check(f".{role}" in roles, f"{host.name} has records {roles}")
            check(not list((host.directory).glob("vmm/**/*")), "something is in the usual place too")
        bed.b.call("stop", there)


def flags_of_memory(pid, size):
    """What the kernel says of mappings that large."""
    flags = set()
    large = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Size":
            large = int(value.split()[0]) << 10 >= size
        elif name == "VmFlags" and large:
            flags |= set(value.split())
    return flags


def backing(options):
    with harness.Bed(options) as bed:
        listener = bed.b.receive("--backing", "small")
        guest = start(bed.a, "--backing", "small", image="dirty.elf", append="fill=8 ws=4 pps=5000")
        bed.a.json("preflight", "guest", listener.address)
        here = flags_of_memory(guest.pid, 64 << 20)
        bed.a.migrate(listener.address, "--verify", "full")
        harness.Serial(bed.b.serial_path("guest")).connect().check()
        there = flags_of_memory(harness.children(listener.pid)[0], 64 << 20)
        for flags in (here, there):
            check("hg" not in flags and ("nh" in flags or not HUGE_PAGES.exists()), f"{flags}")


def signal_stops_a_guest(options):
    """SIGTERM is `vmm stop`, at rest and in the middle of a migration."""
    with Scene(options) as scene:
        other = start(scene.bed.a, name="other")
        os.kill(other.pid, signal.SIGTERM)
        check(other.wait() == 0, other.log())
        control = scene.bed.a.control()
        with scene.migration_held("source", "copy") as move:
            os.kill(scene.guest.pid, signal.SIGTERM)
            while control.taken()["state"] == "running":
                pass
        check(move.result() == 1, move.done.stdout + move.done.stderr)
        check(scene.guest.wait() == 0, scene.guest.log())
        scene.destination_is_empty()


TESTS = {f.__name__: f for f in (
    receive_once, receive_once_after_a_failure, receive_once_waits_for_the_source, signal_stops_what_once_received,
    guests_outlive_their_listener, receive_name, serial_in_use, timeout, max_bandwidth, on_stall,
    state_dir_and_control, backing, signal_stops_a_guest)}

if __name__ == "__main__":
    harness.main(TESTS)
