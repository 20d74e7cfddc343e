#!/usr/bin/python3
"""Eight guests come at once to a host whose CPUs are all taken: each arrives, waits its turn or is refused, and none
hangs. A destination that stands still before Commit costs the guest no more than --max-pause."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from integration import harness  # noqa: E402
from integration.handover_test import Scene  # noqa: E402
from integration.harness import check  # noqa: E402
from integration.tls_test import TlsBed  # noqa: E402
from support import json_schema  # noqa: E402

GUESTS = [f"guest-{number}" for number in range(8)]
# This is about who arrives, not how fast: no pause is too long for a host that has no time for anybody.
PATIENT = ("--max-downtime", "5s", "--max-pause", "30s")
MAX_PAUSE_MS = 1000
# What a loaded host may add before the guest is seen to go on, in its own time; without --max-pause a silence ends
# after 10 s.
MARGIN_MS = 4000


@contextlib.contextmanager
def burners():
    """A process for each CPU that never waits."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


class Move:
    """`vmm migrate` of one guest, while the test does something else."""

    def __init__(self, host, name, address, *args, limits=PATIENT):
        self.name = name
        words = [str(host.bed.binary), *host.words("migrate", name, address, "--json", *limits, *args)]
        self.popen = subprocess.Popen(words, env=host.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def result(self):
        """The exit status; what it printed is in `report`."""
        try:
            out, error = self.popen.communicate(timeout=harness.DEADLINE)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            raise harness.Failure(f"the migration of {self.name} hangs") from None
        self.report = json.loads(out)
        json_schema.validate("migrate", self.report)
        self.text = out + error
        return self.popen.returncode


def receive(host, *args):
    """Without serial ports, which serve one guest only."""
    process = host.vmm("receive", "--listen", f"tcp:{host.ADDRESS}:0", "--serial", "null", *args)
    process.address = process.wait_line(r"(tcp:[\d.]+:\d+)").group(1)
    return process


def start_guests(bed, names):
    guests = {name: bed.a.run("dirty.elf", name=name, append="fill=16 ws=2 pps=2000") for name in names}
    for guest in guests.values():
        guest.serial.expect("ready")
    return guests


def is_well(serial):
    serial.check()
    serial.send("finish")
    serial.expect("PASS")


def have_arrived(bed, names):
    """Each runs on host b; it moves on to where it has a serial port, and checks itself."""
    third = bed.make_host("c")
    for name in names:
        check(bed.b.status(name)["state"] == "running", f"{bed.b.status(name)}")
        listener = third.receive("--once", name=name)
        bed.b.migrate(listener.address, *harness.LIMITS, name=name)
        is_well(third.serial(name))


def all_arrive(options, *limits):
    with harness.Bed(options) as bed:
        listener = receive(bed.b, *limits)
        start_guests(bed, GUESTS)
        with burners():
            for move in [Move(bed.a, name, listener.address) for name in GUESTS]:
                check(move.result() == 0, move.text)
        have_arrived(bed, GUESTS)


def eight_places(options):
    all_arrive(options, "--max-incoming", "8")


def two_places_and_a_queue(options):
    all_arrive(options, "--max-incoming", "2", "--queue", "6")


def beyond_the_queue(options):
    """Two arrive, one waits, and five are told why they may not."""
    with harness.Bed(options, gated=True) as bed:
        listener = receive(bed.b, "--max-incoming", "2", "--queue", "1")
        guests = start_guests(bed, GUESTS)
        bed.gate.hold_at("destination", "receiving")
        with burners():
            moves = [Move(bed.a, name, listener.address) for name in GUESTS]
            bed.gate.wait_held("destination", "receiving", 2)
            harness.wait_for(lambda: sum(move.popen.poll() is not None for move in moves) >= 5)
            refused = [move for move in moves if move.popen.poll() is not None]
            bed.gate.release("destination", "receiving")
            arrived = [move for move in moves if move not in refused]
            for move in refused:
                check(move.result() == 1, move.text)
                reason = move.report["reasons"][0]
                check(reason["code"] == "refused" and "--max-incoming" in reason["what"], f"{reason}")
                check("2 of at most 2" in reason["what"] and "1 of at most 1" in reason["what"], f"{reason}")
            for move in arrived:
                check(move.result() == 0, move.text)
        check(len(refused) == 5, f"{len(refused)} were refused")
        for move in refused:
            is_well(guests[move.name].serial)
        have_arrived(bed, [move.name for move in arrived])


def wait_in_queue(bed, listener, name, place, *args):
    """A migration that has this place."""
    events = bed.a.vmm("events", name, "--json")
    events.wait_line("guest_state")
    move = Move(bed.a, name, listener.address, *args)
    json_schema.validate_event(json.loads(events.wait_line(rf".*\"place\":{place}\b.*").group(0)))
    check(bed.a.status(name)["migration"]["phase"] == "negotiate", f"{bed.a.status(name)}")
    move.events = events
    return move


def queue_in_order(bed, *tls):
    """Who waits can be cancelled and has its --timeout; whoever comes behind moves up, and arrives in the end."""
    limits = ("--max-incoming", "1", "--queue", "3")
    listener = receive(bed.b, *limits, *(bed.tls("b") if tls else ()))
    start_guests(bed, GUESTS[:4])
    bed.gate.hold_at("source", "copy")
    first = Move(bed.a, GUESTS[0], listener.address, *tls)
    bed.gate.wait_held("source", "copy")
    second = wait_in_queue(bed, listener, GUESTS[1], 1, *tls)
    third = wait_in_queue(bed, listener, GUESTS[2], 2, *tls)
    fourth = wait_in_queue(bed, listener, GUESTS[3], 3, *tls)
    for name, move in ((GUESTS[2], third), (GUESTS[1], second)):
        bed.a.call("cancel", name)
        check(move.result() == 3, move.text)
    fourth.events.wait_line(r"\"place\":1\b")
    again = wait_in_queue(bed, listener, GUESTS[1], 2, "--timeout", "3s", *tls)
    check(again.result() == 1, again.text)
    check(again.report["reasons"][0]["code"] == "timeout", again.text)
    bed.gate.release("source", "copy")
    for move in (first, fourth):
        check(move.result() == 0, move.text)


def who_waits(options):
    with harness.Bed(options, gated=True) as bed:
        queue_in_order(bed)
        have_arrived(bed, (GUESTS[0], GUESTS[3]))


def who_waits_with_tls(options):
    with TlsBed(options, gated=True) as bed:
        queue_in_order(bed, *bed.tls("a"))


def goes_on_in_time(scene, move, phase):
    """The guest is at the source, and has seen no pause longer than it may."""
    check(move.result() == 1, f"stalled at {phase}: {move.text}")
    reason = move.report["reasons"][0]
    check(reason["code"] == "timeout", f"stalled at {phase}: {reason}")
    gap_ms = float(scene.guest.serial.ask("status")["gap_total_max_us"]) / 1000
    check(gap_ms < MAX_PAUSE_MS + MARGIN_MS, f"stalled at {phase}: the guest stood still for {gap_ms} ms")
    scene.source_is_well()
    return reason["what"]


STALL_LIMITS = ("--max-downtime", f"{MAX_PAUSE_MS}ms", "--max-pause", f"{MAX_PAUSE_MS}ms", "--timeout")


class StallScene(Scene):
    def __init__(self, options, receive_options):
        super().__init__(options)
        self.receive_options = receive_options


def stopped_destination(options):
    """Its process stands still in each state before Commit, and goes on when all is over."""
    for phase, limit, timeout in (("configured", "--timeout", "2s"), ("receiving", "--timeout", "2s"),
                                  ("verified", "--max-pause", "60s"), ("loaded", "--max-pause", "60s")):
        with Scene(options) as scene, burners():
            scene.gate.hold_at("destination", phase)
            move = Move(scene.bed.a, "guest", scene.listener.address, limits=(*STALL_LIMITS, timeout))
            pid = scene.gate.wait_held("destination", phase)
            os.kill(pid, signal.SIGSTOP)
            what = goes_on_in_time(scene, move, phase)
            check(limit in what, f"stalled at {phase}: {what}")
            os.kill(pid, signal.SIGCONT)
            scene.gate.release("destination", phase)
            scene.destination_is_empty()


def silent_destination(options):
    """It goes on, and no word of it arrives any more."""
    for phase, limit, timeout in (("receiving", "--timeout", "2s"), ("loaded", "--max-pause", "60s")):
        fault = ("--fault", f"stall@{phase}:1")
        with StallScene(options, fault) as scene, burners():
            move = Move(scene.bed.a, "guest", scene.listener.address, limits=(*STALL_LIMITS, timeout))
            what = goes_on_in_time(scene, move, phase)
            check(limit in what, f"stalled at {phase}: {what}")


TESTS = {name: globals()[name] for name in (
    "eight_places", "two_places_and_a_queue", "beyond_the_queue", "who_waits", "who_waits_with_tls",
    "stopped_destination", "silent_destination")}

if __name__ == "__main__":
    harness.main(TESTS)
