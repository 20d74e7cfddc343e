#!/usr/bin/python3
"""Who may have a disk: reasons against a move, second users, and handovers that go wrong at each step. At any time one
process at most owns the image, and it is the one whose guest runs."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from integration import disk, harness  # noqa: E402
from integration.handover_test import Move, Scene  # noqa: E402
from integration.harness import check  # noqa: E402
from support import json_schema  # noqa: E402

IMAGE = "blkcheck.elf"
PARAMETERS = "area=1 depth=16"


class DiskScene(Scene):
    """The guest has a disk that both hosts can open."""

    def prepare(self):
        self.disk = disk.make(self.bed.directory / "disk")
        self.option = disk.option(self.disk)
        self.receive_options = self.option

    def start_guest(self):
        self.guest = self.bed.a.run(IMAGE, *self.option, append=PARAMETERS, memory="32M")
        self.guest.serial.expect("ready")

    def owned_by(self, pid):
        return disk.owners(self.disk) == {pid} and disk.is_locked(self.disk, disk.OWNER_AT)

    def owned_by_source(self):
        return self.owned_by(self.guest.pid)

    def free(self):
        return not disk.is_locked(self.disk, disk.OWNER_AT) and not disk.is_locked(self.disk, disk.HEIR_AT)

    def heirs(self):
        return disk.holders(self.disk, disk.HEIR_AT)

    def reception(self):
        children = harness.children(self.listener.pid)
        check(len(children) == 1, f"processes that take a guest in: {children}")
        return children[0]


def all_reasons_at_once(options):
    """Every disk that does not fit, each with its name, beside what has nothing to do with disks."""
    with harness.Bed(options) as bed:
        names = ("missing", "copied", "writable", "unknown")
        disks = {name: disk.make(bed.directory / name) for name in names}
        copy = disk.make(bed.directory / "copy")
        guest = bed.a.run("hello.elf", *disk.option(disks["missing"], name="missing"),
                          *disk.option(disks["copied"], name="copied"),
                          *disk.option(disks["writable"], "ro", name="writable"),
                          *disk.option(disks["unknown"], name="unknown"), append="wait=1")
        guest.serial.expect("ready")
        listener = bed.b.receive("--max-memory", "16M", *disk.option(bed.directory / "nowhere", name="missing"),
                                 *disk.option(copy, name="copied"), *disk.option(disks["writable"], name="writable"),
                                 *disk.option(disk.make(bed.directory / "more"), name="surplus"))
        wanted = {("device_unusable", "missing"), ("device_unusable", "copied"), ("other_disk", "writable"),
                  ("unknown_device", "unknown"), ("surplus_device", "surplus"), ("memory_limit", "")}
        for answer, schema in ((bed.a.migrate(listener.address, status=1), "migrate"),
                               (bed.a.json("preflight", "guest", listener.address, status=1), "preflight")):
            json_schema.validate(schema, answer)
            found = {(reason["code"], reason["where"].split('"')[1] if '"' in reason["where"] else "")
                     for reason in answer["reasons"]}
            check(found == wanted, f"{schema}: {found ^ wanted}: {answer['reasons']}")
        texts = {reason["where"]: reason for reason in answer["reasons"]}
        missing = texts['device virtio-blk "missing"']
        check("No such file" in missing["what"] and "truncate(1)" in missing["do"], f"{missing}")
        check("not the image that the guest uses" in texts['device virtio-blk "copied"']["what"], f"{texts}")
        check("read-only" in texts['device virtio-blk "writable"']["what"], f"{texts}")
        guest.serial.ask("status")
        check(disk.owners(disks["copied"]) == {guest.pid}, "the refused guest has lost a disk")


def refused_run(host, *args):
    """One clear line, and status 4."""
    second = host.vmm("run", "--name", "second", "--serial", "null", *args, host.bed.guests / "hello.elf")
    check(second.wait() == 4, second.log())
    check(len(second.log().splitlines()) == 1, second.log())
    return second.log()


def second_user(options):
    """Of an image that a guest has, or is about to have."""
    with DiskScene(options) as scene:
        bed = scene.bed
        text = refused_run(bed.a, *scene.option)
        check(f"{scene.disk} is in use by another guest" in text and "end that one first" in text, text)
        third = bed.b.receive(*scene.option, name="third")
        other = bed.a.run("hello.elf", *disk.option(disk.make(bed.directory / "other")), append="wait=1", name="other")
        other.serial.expect("ready")
        with scene.migration_held("source", "copy") as move:
            check(scene.heirs() == {scene.reception()}, f"heirs {scene.heirs()}")
            text = refused_run(bed.b, *scene.option)
            check("or about to be" in text, text)
            report = bed.a.migrate(third.address, name="other", status=1)
            reasons = [(reason["code"], reason["where"]) for reason in report["reasons"]]
            check(reasons == [("device_unusable", 'device virtio-blk "data"')], f"{report['reasons']}")
            check("about to be used" in report["reasons"][0]["what"], f"{report['reasons']}")
            check(scene.owned_by_source(), "the guest lost its disk")
        check(move.result() == 0, move.done.stdout + move.done.stderr)
        check(not scene.heirs(), "a guest that has its disk is still its heir")
        scene.destination_is_well()
        harness.wait_for(scene.free)


def cut_on_each_side_of_the_gift(options):
    """Before the source has given the disk away, and after: it goes on writing here."""
    for phase in ("final", "commit"):
        with DiskScene(options) as scene:
            with scene.migration_held("source", phase) as move:
                check(scene.owned_by_source() if phase == "final" else not disk.owners(scene.disk),
                      f"{phase}: owners {disk.owners(scene.disk)}")
                scene.link.cut()
            check(move.result() == 1, f"{phase}: {move.done.stdout}")
            check(scene.owned_by_source(), f"{phase}: owners {disk.owners(scene.disk)}")
            changes = int(scene.guest.serial.ask("status")["changes"])
            harness.wait_for(lambda: int(scene.guest.serial.ask("status")["changes"]) > changes)
            scene.guest.serial.check()
            scene.destination_is_empty()
            scene.receives_again()
            harness.wait_for(scene.free)


def late_commit(options):
    """Commit reaches the destination after the source has given it up: the disk is not there to be taken."""
    with DiskScene(options) as scene:
        with scene.migration_held("source", "commit") as move:
            scene.link.keep()
        scene.link.wait_kept()
        check(not disk.owners(scene.disk), f"owners {disk.owners(scene.disk)}")
        scene.link.cut_near()
        harness.wait_for(scene.owned_by_source)
        scene.link.deliver()
        scene.gate.wait_seen("destination", "refused")
        check(scene.owned_by_source(), f"owners {disk.owners(scene.disk)}")
        check(("destination", "started") not in scene.gate.seen, "two guests had one disk")
        scene.link.down = False
        check(move.result() == 1, move.done.stdout + move.done.stderr)
        scene.source_is_well()


def unknown_keeps_the_disk(options):
    """The destination died with the guest: nobody else gets the disk while a person decides."""
    with DiskScene(options) as scene:
        scene.gate.hold_at("destination", "started")
        move = scene.migrate()
        reception = scene.gate.wait_held("destination", "started")
        check(scene.owned_by(reception), f"owners {disk.owners(scene.disk)}")
        os.kill(reception, signal.SIGKILL)
        check(move.result() == 4, move.done.stdout + move.done.stderr)
        check(scene.owned_by_source(), f"owners {disk.owners(scene.disk)}")
        refused_run(scene.bed.b, *scene.option)
        scene.bed.a.call("resolve", "guest", "--discard")
        check(scene.guest.wait() == 0, scene.guest.log())
        harness.wait_for(scene.free)  # soon: io_uring closes its files after the process has ended


def source_killed(options):
    """Before the destination was told to start the disk is free; after it, it is the destination's."""
    with DiskScene(options) as scene:
        for phase in ("final", "commit"):
            scene.gate.hold_at("source", phase)
            move = scene.migrate()
            scene.gate.wait_held("source", phase)
            scene.guest.kill()
            check(move.result() == 4, f"{phase}: exit {move.done.returncode}")
            scene.destination_is_empty()
            harness.wait_for(scene.free)
            scene.gate.release("source", phase)
            scene.start_guest()
        with scene.migration_held("destination", "started") as move:
            reception = scene.reception()
            scene.guest.kill()
            check(scene.owned_by(reception), f"owners {disk.owners(scene.disk)}")
        scene.destination_is_well()


def destination_killed(options):
    """Whenever it dies before it was told to start, the guest goes on with its disk, and has no heir."""
    with DiskScene(options) as scene:
        for role, phase in (("destination", "receiving"), ("destination", "loaded"), ("source", "commit")):
            with scene.migration_held(role, phase) as move:
                scene.kill_reception()
            check(move.result() == 1, f"{phase}: exit {move.done.returncode}: {move.done.stdout}")
            check(scene.owned_by_source() and not scene.heirs(), f"{phase}: owners {disk.owners(scene.disk)}")
            scene.guest.serial.check()
        scene.receives_again()


def paused_guest(options):
    """It arrives paused and owns its disk; so does one whose move was undone."""
    with DiskScene(options) as scene:
        scene.bed.a.call("pause", "guest")
        with scene.migration_held("source", "commit") as move:
            scene.link.cut()
        check(move.result() == 1, move.done.stdout + move.done.stderr)
        check(scene.owned_by_source(), f"owners {disk.owners(scene.disk)}")
        move = Move(scene.bed.a, scene.listener.address)
        check(move.result() == 0, move.done.stdout + move.done.stderr)
        check(scene.owned_by(scene.reception()), f"owners {disk.owners(scene.disk)}")
        scene.bed.b.call("resume", "guest")
        scene.destination_is_well()


class FileSystem:
    """Of its own, and it can be frozen: then writes block, and who waits for one cannot be killed."""

    def __init__(self, directory):
        self.place = directory / "mounted"
        self.place.mkdir()
        for tool in ("mkfs.ext4", "fsfreeze"):
            if shutil.which(tool) is None:
                raise harness.Skipped(f"there is no {tool}")
        image = disk.make(directory / "ext4", 32 << 20)
        for step in (["mkfs.ext4", "-q", "-F", image], ["mount", "-o", "loop", image, self.place]):
            done = subprocess.run(step, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise harness.Skipped(f"{step[0]}: {done.stderr.strip()}")

    @contextlib.contextmanager
    def frozen(self):
        subprocess.run(["fsfreeze", "--freeze", self.place], check=True)
        try:
            yield
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", self.place], check=True)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        """Soon: io_uring closes its files after the process has ended."""
        harness.wait_for(lambda: not subprocess.run(["umount", self.place], capture_output=True, check=False).returncode)


def blocked_writes(pid):
    """Of io_uring's threads of a process, how many wait for something that cannot be interrupted."""
    count = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            name, state = re.match(r"\d+ \((.*)\) (\S)", (task / "stat").read_text()).groups()
        except OSError:
            continue  # it ended meanwhile
        count += name.startswith("iou-wrk") and state == "D"
    return count


class StorageScene(DiskScene):
    def __init__(self, options, storage):
        super().__init__(options)
        self.storage = storage

    def prepare(self):
        self.disk = disk.make(self.storage.place / "disk")
        self.option = self.receive_options = disk.option(self.disk, "direct")


def disk_that_does_not_come_to_rest(options):
    """A request that does not end holds a pause up to its limit. Then the guest goes on, and moves when the disk does."""
    with tempfile.TemporaryDirectory(prefix="godwit-") as directory, FileSystem(Path(directory)) as storage, \
            StorageScene(options, storage) as scene:
        a, address = scene.bed.a, scene.listener.address
        with storage.frozen():
            harness.wait_for(lambda: blocked_writes(scene.guest.pid))
            report = a.migrate(address, "--max-downtime", "50ms", "--max-pause", "100ms", status=1)
            json_schema.validate("migrate", report)
            check("still with the host after 100 ms" in report["reasons"][0]["what"], f"{report['reasons']}")
            check(a.status()["state"] == "running", f"{a.status()}")
        scene.guest.serial.check()
        a.migrate(address)
        scene.destination_is_well()


TESTS = {f.__name__: f for f in (
    all_reasons_at_once, second_user, cut_on_each_side_of_the_gift, late_commit, unknown_keeps_the_disk, source_killed,
    destination_killed, paused_guest, disk_that_does_not_come_to_rest)}

if __name__ == "__main__":
    harness.main(TESTS)
