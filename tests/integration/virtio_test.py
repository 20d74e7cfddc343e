#!/usr/bin/python3
"""Guests with virtio devices, moved back and forth while they use them: nothing of a disk is lost or repeated, and the
network finds the guest where it is. `--moves 50 side_by_side` is the long run, with its figures."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from guests import block_image  # noqa: E402
from integration import disk, harness, netns  # noqa: E402
from integration.harness import check  # noqa: E402
from integration.moves_test import move  # noqa: E402
from support import json_schema  # noqa: E402

AREA_MIB = 1
BLOCKS = (AREA_MIB << 20) // 4096
DEPTH = 16
PEER_INTERVAL_MS = 5
REQUESTS = ("reads", "writes", "flushes", "discards", "zeroes")


class Tally:
    """What the moves of a guest came to."""

    def __init__(self):
        self.downtimes = []
        self.drained = []

    def add(self, report):
        check(report["drain"]["ms"] <= report["downtime"]["pause_ms"], f"the drain is no part of the pause: {report}")
        self.downtimes.append(report["downtime_ms"])
        self.drained.append(report["drain"]["requests"])

    def __str__(self):
        return (f"{len(self.downtimes)} moves, downtime median {statistics.median(self.downtimes):.1f} ms, "
                f"max {max(self.downtimes):.1f} ms, {sum(self.drained)} requests drained")


class Traveller:
    """A guest on host a of a bed, with a listener for it on each host, that is moved to and fro."""

    def __init__(self, bed, image, devices=(), on_run=None, name="guest", append="", **settings):
        self.bed = bed
        self.name = name
        self.tally = Tally()
        self.here, self.there = bed.a, bed.b
        self.listeners = {host: host.receive(*devices, name=name) for host in (bed.a, bed.b)}
        self.process = bed.a.run(image, *(on_run or devices), name=name, append=append, **settings)
        self.serial = self.process.serial
        self.ready = self.serial.expect("ready")

    def move(self):
        """At a random moment: after a random number of answers from the guest."""
        for _ in range(self.bed.random.randrange(1, 4)):
            self.serial.ask("status")
        report, self.serial = move(self.bed, self.here, self.there, self.serial,
                                   listener=self.listeners[self.there], name=self.name)
        self.tally.add(report)
        self.here, self.there = self.there, self.here

    def finish(self):
        """The guest's last word, and its status just before."""
        status = self.serial.ask("status")
        self.serial.send("finish")
        self.serial.expect("PASS")
        return status


class DiskTraveller(Traveller):
    def __init__(self, bed, *flags, append="", **settings):
        self.disk = disk.make(bed.directory / "disk", AREA_MIB << 20)
        super().__init__(bed, "blkcheck.elf", disk.option(self.disk, *flags),
                         append=f"area={AREA_MIB} depth={DEPTH} {append}", **settings)

    def finish(self):
        """Judged from outside as well; the number of requests."""
        status = super().finish()
        numbers = block_image.writes_in(self.disk, BLOCKS)
        # The guest went on writing for a moment.
        check(numbers and max(numbers) >= int(status["writes"]) - BLOCKS, f"{max(numbers)} in the image: {status}")
        return sum(int(status[kind]) for kind in REQUESTS)


class Peer:
    """net_peer.py in its namespace."""

    def __init__(self, bed):
        program = Path(__file__).with_name("net_peer.py")
        words = bed.namespaces["peer"].words("/usr/bin/python3", str(program), netns.GUEST_ADDRESS,
                                             str(PEER_INTERVAL_MS))
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.process.kill()
        self.process.communicate()

    def begin(self):
        """From here on its counts are those of a stream that is answered."""
        for command in ("start", "sync", "report"):
            self.ask(command)

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        check(answer, f"the peer ended at `{command}`")
        answer = json.loads(answer)
        check(answer.get("answered", True), f"`{command}` of the peer was never answered")
        return answer


class NetTraveller(Traveller):
    def __init__(self, bed, append="", **settings):
        options = f"id=lan,tap={netns.TAP}"
        super().__init__(bed, "netecho.elf", ("--net", options), ("--net", f"{options},mac={netns.GUEST_MAC}"),
                         append=f"ip={netns.GUEST_ADDRESS} {append}", **settings)

    def announced(self, times):
        """Waits until the guest has announced itself so often: at its start, and when a device asked it to."""
        harness.wait_for(lambda: int(self.serial.ask("status")["announcements"]) >= times)

    def finish(self):
        status = super().finish()
        wrong = [what for what in ("bad_checksums", "late_answers", "uncounted") if status[what] != "0"]
        check(not wrong, f"{wrong}: {status}")
        return status


class Gaps:
    """What the peer measured, a report for each move."""

    def __init__(self):
        self.reports = []

    def add(self, report):
        check(not report["repeated"], f"answers came twice: {report}")
        self.reports.append(report)

    def __str__(self):
        lost = [report["lost"] for report in self.reports]
        gaps = [report["longest_gap_ms"] for report in self.reports]
        return (f"peer: longest gap {max(gaps):.1f} ms, median {statistics.median(gaps):.1f} ms; lost {sum(lost)} of "
                f"{sum(report['sent'] for report in self.reports)} datagrams, at most {max(lost)} "
                f"({max(lost) * PEER_INTERVAL_MS} ms) in a move")


def blkcheck(options, *flags, append="", **settings):
    with harness.Bed(options) as bed:
        guest = DiskTraveller(bed, *flags, append=append, **settings)
        for _ in range(options.moves or 6):
            guest.move()
            guest.serial.check()
        requests = guest.finish()
        print(f"  {guest.tally}, {requests} requests")


def blkcheck_interrupts(options):
    blkcheck(options)


def blkcheck_polling(options):
    blkcheck(options, append="irq=0")


def blkcheck_plain_ring(options):
    """Without event index and indirect descriptors; more vCPUs than the one that works."""
    blkcheck(options, append="event_idx=0 indirect=0", cpus=4)


def blkcheck_direct(options):
    with harness.Bed(options) as bed:
        try:
            os.close(os.open(disk.make(bed.directory / "probe"), os.O_RDWR | os.O_DIRECT))
        except OSError as error:
            raise harness.Skipped(f"no O_DIRECT in {bed.directory}: {error.strerror}") from None
    blkcheck(options, "direct")


def netecho(options):
    """The peer misses the guest for a moment, and its heartbeats arrive in order, each once."""
    for append in ("", "irq=0 csum=1"):
        with netns.Bed(options) as bed, Peer(bed) as peer:
            guest = NetTraveller(bed, append=f"peer={netns.PEER_ADDRESS} beat_ms=20 {append}")
            peer.begin()
            gaps = Gaps()
            for number in range(options.moves or 3):
                guest.move()
                peer.ask("sync")
                guest.announced(number + 2)
                gaps.add(peer.ask("report"))
            status = guest.finish()
            check(int(status["answers"]) > 0, f"no heartbeat came back: {status}")
            print(f"  {guest.tally}; {gaps}; {status['lost_answers']} of {status['beats']} heartbeats lost")


def silent_guest(options):
    """A guest that says nothing is found where it is, by what the host says for it: the switches know it before anybody
    speaks, and the first datagram is answered."""
    with netns.Bed(options) as bed, Peer(bed) as peer:
        guest = NetTraveller(bed, append="announce=0")
        for command in ("start", "sync", "stop"):
            peer.ask(command)
        for _ in range(options.moves or 4):
            sent = guest.serial.ask("status")["tx"]
            guest.move()
            at_b = guest.here is bed.b
            for host, port in ((bed.a, "uplink" if at_b else netns.TAP), (bed.b, netns.TAP if at_b else "uplink")):
                harness.wait_for(lambda: host.namespace.port_of(netns.GUEST_MAC) == port)
            check(guest.serial.ask("status")["tx"] == sent, "the guest was not silent")
            peer.ask("once")
        guest.finish()


def tap_refusals(options):
    """A tap that is missing, one that is in use, and a disk, all at once."""
    with netns.Bed(options) as bed:
        for name in ("tap1", "tap2"):
            bed.a.namespace.ip(f"tuntap add {name} mode tap vnet_hdr\n")
        guest = bed.a.run("hello.elf", "--net", "id=lan,tap=tap1", "--net", "id=wan,tap=tap2",
                          *disk.option(disk.make(bed.directory / "disk")), append="wait=1")
        guest.serial.expect("ready")
        bed.b.run("hello.elf", "--net", f"id=lan,tap={netns.TAP}", append="wait=1", name="other").serial.expect("ready")
        listener = bed.b.receive("--net", "id=lan,tap=nowhere", "--net", f"id=wan,tap={netns.TAP}",
                                 *disk.option(bed.directory / "nowhere"))
        report = bed.a.migrate(listener.address, status=1)
        json_schema.validate("migrate", report)
        reasons = {reason["where"]: reason for reason in report["reasons"]}
        check({reason["code"] for reason in reasons.values()} == {"device_unusable"} and len(reasons) == 3, f"{report}")
        for where, text in (('device virtio-net "lan"', "No such device"), ('device virtio-net "wan"', "busy"),
                            ('device virtio-blk "data"', "No such file")):
            check(text in reasons[where]["what"], f"{where}: {reasons[where]}")
        check("ip tuntap add nowhere" in reasons['device virtio-net "lan"']["do"], f"{reasons}")
        second = bed.b.vmm("run", "--name", "second", "--serial", "null", "--net", f"id=lan,tap={netns.TAP}",
                           bed.guests / "hello.elf")
        check(second.wait() == 4 and len(second.log().splitlines()) == 1, second.log())
        check("another process uses it" in second.log(), second.log())


def side_by_side(options):
    """Four vCPUs with interrupts between them, a disk, and a network, in three guests beside each other, moved in
    turn."""
    with netns.Bed(options) as bed, Peer(bed) as peer:
        net = NetTraveller(bed, append=f"peer={netns.PEER_ADDRESS} beat_ms=20", name="net")
        blk = DiskTraveller(bed, name="blk")
        smp = Traveller(bed, "smp.elf", name="smp", cpus=4)
        peer.begin()
        gaps, others = Gaps(), Gaps()
        for _ in range(options.moves or 3):
            for guest in (smp, blk):
                guest.move()
                guest.serial.check()
            others.add(peer.ask("report"))
            net.move()
            peer.ask("sync")
            gaps.add(peer.ask("report"))
        beats = net.finish()
        requests = blk.finish()
        ticks = smp.finish()
        # A tick that nothing explains ends that guest with FAIL (guest-images/deficit.hpp).
        print(f"  smp, 4 vCPUs: {smp.tally}; {ticks['ticks']} ticks, {ticks['lost']} merged while a "
              f"vCPU did not run, 0 unexplained, {ticks['extra']} extra, {ticks['tsc_warps']} TSC warps\n"
              f"  blkcheck: {blk.tally}; {requests} requests\n"
              f"  netecho: {net.tally}; {gaps}; {beats['lost_answers']} of {beats['beats']} heartbeats lost\n"
              f"  while the other two moved: {others}")


TESTS = {f.__name__: f for f in (
    blkcheck_interrupts, blkcheck_polling, blkcheck_plain_ring, blkcheck_direct, netecho, silent_guest, tap_refusals,
    side_by_side)}

if __name__ == "__main__":
    harness.main(TESTS)
