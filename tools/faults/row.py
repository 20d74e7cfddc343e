"""One fault: a guest that checks itself, two hosts, a migration, the fault, and who runs the guest afterwards."""

import os
import re
import resource
import signal
import subprocess
import time
from dataclasses import dataclass

from faults.watch import Copy
from integration import harness

APPEND = "fill=8 ws=2 pps=2000 sleep_hz=100 beat_hz=25"
AFTER_FAULT = 2.0  # seconds until the outcome is judged
ALIVE = 3.0  # within which a running guest beats, however busy the host
LATE_BEATS = 0.3  # seconds: those of the source that were under way when it stopped
SILENT = 0.6  # of a guest that does not run
MIGRATE_LIMIT = 90  # seconds: no migration may take longer
OUTCOMES = ("source runs", "destination runs", "paused and resolvable", "died with its owner", "both", "none")
WRONG = ("both", "none")
CONTRARY = {"source": ("completed",), "destination": ("failed", "cancelled")}  # reports


@dataclass
class Verdict:
    outcome: str  # of OUTCOMES, or "error"
    after: str  # whose the guest was in the end, once a person had resolved what was left open
    text: str


class Scene:
    def __init__(self, options, cell, plan):
        self.cell = cell
        self.plan = plan
        self.bed = harness.Bed(options)
        self.copies = {}

    def __enter__(self):
        bed = self.bed.__enter__()
        on_destination = () if self.cell.side == "source" else self._fault_words()
        self.receiver = bed.b.receive(*on_destination, *self._link_words("b"))
        if self.cell.kind == "no-memory":
            self._take_memory()
        self.guest = bed.a.vmm("run", "--name", "guest", "--memory", "24M", "--append", APPEND, "--serial",
                               f"unix:{bed.a.serial_path('guest')}", bed.guests / "dirty.elf")
        self.copies = {"source": Copy(bed.a.serial_path("guest")), "destination": Copy(bed.b.serial_path("guest"))}
        harness.check(self.copies["source"].beats_now(harness.DEADLINE), f"the guest never began: {self.guest.log()}")
        return self

    def __exit__(self, *failure):
        self.bed.__exit__(None, None, None)
        for copy in self.copies.values():
            copy.end()

    def _link_words(self, host):
        return ("--tls-dir", str(self.bed.options.certs / host)) if self.plan.tls else ()

    def _fault_words(self):
        return () if self.cell.kind == "no-memory" else ("--fault", self.plan.fault)

    def _take_memory(self):
        """Sessions inherit what is left: enough to begin, too little for the guest."""
        status = open(f"/proc/{self.receiver.pid}/status", encoding="ascii").read()
        size = int(re.search(r"VmSize:\s+(\d+)", status).group(1)) << 10
        limit = size + (64 << 20)
        resource.prlimit(self.receiver.pid, resource.RLIMIT_AS, (limit, limit))

    def migrate(self):
        words = [str(self.bed.binary), "migrate", "guest", self.receiver.address, "--json", "--max-downtime", "300ms"]
        words += [*self.plan.retry, "--streams", str(self.plan.streams), *self._link_words("a")]
        words += self._fault_words() if self.cell.side == "source" else ()
        self.migration = subprocess.Popen(words, env=self.bed.a.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                          text=True)

    def struck_log(self):
        """The process on whose side the fault is, by its log."""
        return self.guest if self.cell.side == "source" else self.receiver

    def wait_struck(self):
        """When the fault struck; nothing if the migration ended without."""
        if self.cell.kind == "no-memory":
            return time.monotonic()
        process = self.struck_log()
        deadline = time.monotonic() + MIGRATE_LIMIT
        with process.changed:
            while time.monotonic() < deadline:
                if any("vmm: fault: " in line for line in process.lines):
                    return time.monotonic()
                if self.migration.poll() is not None and not process.changed.wait(0.5):
                    return None
                process.changed.wait(0.1)
        return None

    def let_go_on(self):
        """The process that has stopped itself."""
        time.sleep(self.plan.stopped_s)
        pids = [self.guest.pid] if self.cell.side == "source" else harness.children(self.receiver.pid)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    def status(self):
        done = self.bed.a.call("status", "guest", "--json", status=None)
        return done.stdout

    def runs(self, side):
        return self.copies[side].beats_now(SILENT)


def doubled(scene):
    """Whether the source beat again after the destination had begun."""
    begun = scene.copies["destination"].first_beat()
    return begun is not None and scene.copies["source"].beats_since(begun + LATE_BEATS) > 0


def who_runs(scene):
    """By heartbeats alone: any of the two sides."""
    end = time.monotonic() + ALIVE
    while True:
        sides = [side for side in ("source", "destination") if scene.runs(side)]
        if sides or time.monotonic() > end:
            return sides


def self_checked(scene, side):
    verdict = scene.copies[side].self_check(harness.DEADLINE)
    harness.check(" ok=1" in verdict, f"{side}: self-check: {verdict or 'no answer'}")


def resolve(scene):
    """As a person would: with the guest found at the destination it is discarded, else it is resumed."""
    listed = scene.bed.b.json("list", status=None)["guests"]
    at_destination = any(guest["state"] == "running" for guest in listed)
    scene.bed.a.call("resolve", "guest", "--discard" if at_destination else "--resume")
    sides = who_runs(scene)
    harness.check(len(sides) == 1, f"after `vmm resolve`: {sides or 'nobody'} runs")
    self_checked(scene, sides[0])
    return sides[0]


def judge(scene, struck):
    time.sleep(max(0.0, struck + max(AFTER_FAULT, scene.plan.late_s + 1) - time.monotonic()))
    try:
        output, errors = scene.migration.communicate(timeout=MIGRATE_LIMIT)
    except subprocess.TimeoutExpired:
        return Verdict("error", "", f"`vmm migrate` did not end within {MIGRATE_LIMIT} s")
    text = (output + errors).strip()[-400:]
    result = re.search(r'"result":"(\w+)"', output)
    result = result.group(1) if result else "none"
    sides = who_runs(scene)
    if len(sides) == 2 or doubled(scene):
        return Verdict("both", "", text)
    if sides:
        self_checked(scene, sides[0])
        if result in CONTRARY[sides[0]]:
            return Verdict("error", "", f"{sides[0]} runs, but the report says {result}: {text}")
        return Verdict(f"{sides[0]} runs", sides[0], text)
    if '"outcome_unknown"' in scene.status():
        return Verdict("paused and resolvable", resolve(scene), text)
    if owner_was_killed(scene, result):
        return Verdict("died with its owner", "", text)
    return Verdict("none", "", text)


def owner_was_killed(scene, result):
    """Whether the process that the fault killed owned the guest then, by the protocol."""
    if scene.cell.kind != "kill":
        return False
    if scene.cell.side == "destination":
        return result == "completed"
    # `committing` is written before the first byte of Commit: that record is step 1, Commit itself step 2.
    return scene.cell.phase not in ("commit", "done") or scene.cell.phase == "commit" and scene.plan.step < 2


def run(options, cell, seed):
    plan = cell.plan(seed)
    try:
        with Scene(options, cell, plan) as scene:
            scene.migrate()
            struck = scene.wait_struck()
            if struck is None:
                scene.migration.kill()
                return Verdict("error", "", f"{plan.fault} never struck: {scene.migration.communicate()}")
            if cell.kind == "stop":
                scene.let_go_on()
                struck = time.monotonic()
            verdict = judge(scene, struck)
            if verdict.outcome in (*WRONG, "error"):
                verdict.text += f"\nsource: {scene.guest.log()}\ndestination: {scene.receiver.log()}"
            return verdict
    except (harness.Failure, subprocess.TimeoutExpired, OSError, KeyError, ValueError) as failure:
        return Verdict("error", "", f"{type(failure).__name__}: {failure}")
