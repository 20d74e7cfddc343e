"""One sample: a quiet window, then a move, and what the guest and the outside saw in each."""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from benchmark.link import Link
from benchmark.memory import Sampler
from benchmark.observer import Observer
from benchmark.points import BEAT_HZ, Point, idle
from benchmark.systems import SYSTEMS, Host

RUNTIME = "/dev/shm"  # as /run is where users have their sockets and records: no journal to wait for
SETTLE = 0.03  # seconds: what the guest prints would delay its beats
QUIET = (0.3, 2.0)  # seconds, at least and at most; between them as long as the move before
AFTER = 0.1  # seconds after the pause in which the guest may still be slower


@dataclass(frozen=True)
class Tools:
    """Where the programs are."""

    build: Path

    @property
    def vmm(self):
        return self.build / "bin" / "vmm"

    @property
    def guests(self):
        return self.build / "guests"

    @property
    def observer(self):
        return self.build / "bin" / "observer"

    @property
    def raw_limits(self):
        return self.build / "bin" / "raw_limits"


@contextlib.contextmanager
def memory_kept():
    """A machine that is a guest itself reports memory that is free to its host, and fetching it back is slow and takes
    CPU time at any moment. Not while we measure."""
    order = Path("/sys/module/page_reporting/parameters/page_reporting_order")
    before = order.read_text(encoding="ascii") if order.exists() else None
    try:
        if before is not None:
            order.write_text("11", encoding="ascii")  # larger than any block there is
        yield
    finally:
        if before is not None:
            order.write_text(before, encoding="ascii")


def busy_seconds():
    """CPU time that all processors of the machine have spent on anything."""
    words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq = map(int, words[:7])
    return (user + nice + system + irq + softirq) / 100


def lost_beats_percent(beats, begin, end):
    """Of a span of time.monotonic(): a beat that did not come is a millisecond in which the guest did not run."""
    due = (end - begin) * BEAT_HZ
    came = sum(1 for beat in beats if begin < beat <= end)
    return max(0.0, 100 * (1 - came / due)) if due >= 5 else None


def brownout(beats, begin):
    """What the guest lost from `begin` to the longest gap between beats, which is the pause, and after it."""
    gaps = [(after - before, before, after) for before, after in zip(beats, beats[1:]) if before >= begin]
    if not gaps:
        return {}
    _, paused, resumed = max(gaps)
    return {"brownout_copy_percent": lost_beats_percent(beats, begin, paused),
            "brownout_after_percent": lost_beats_percent(beats, resumed, min(resumed + AFTER, beats[-1]))}


class Guest:
    """One guest of one system, with its observer."""

    def __init__(self, tools, name, point, link, directory, number=0):
        directory.mkdir()
        self.tools = tools
        self.point = point
        self.hosts = [Host(directory / name_of, *place) for name_of, place in zip("ab", link.hosts)]
        self.system = SYSTEMS[name](tools, point, self.hosts, number)
        self.observer = Observer(tools.observer, [host.serial for host in self.hosts])
        self.here = 0
        self.quiet = QUIET[0]
        try:
            self.system.start()
            self.observer.begin_connect(0)
            self.observer.end_connect(0)
            self.observer.expect("ready")
        except BaseException:
            self.close()
            raise

    def sample(self):
        there = 1 - self.here
        self.system.expect_at(there)
        self.observer.ask(self.here, "status")
        time.sleep(SETTLE)
        self.observer.window()
        time.sleep(self.quiet)
        quiet_outside = self.observer.window()
        quiet_inside = self.observer.ask(self.here, "status")
        # Memory for the copy: a machine that is a guest itself gives back what has been free for a second or two.
        subprocess.run([self.tools.raw_limits, "touch", str(self.point.used_mib + 256)], check=True)
        self.observer.ask(self.here, "status")
        time.sleep(SETTLE)
        self.observer.window()
        self.observer.begin_connect(there)
        cpu = busy_seconds()
        begin = time.monotonic()
        found = self.system.move(self.here, there)
        took = time.monotonic() - begin
        cpu = busy_seconds() - cpu
        self.observer.end_connect(there)
        time.sleep(SETTLE)
        beats = self.observer.beats()
        outside = self.observer.window()
        inside = self.observer.ask(there, "status")
        self.here = there
        self.quiet = min(max(took, QUIET[0]), QUIET[1])
        found.update({
            "blackout_ms": float(inside["gap_us"]) / 1000, "outside_ms": outside["longest_ms"],
            "quiet_blackout_ms": float(quiet_inside["gap_us"]) / 1000, "quiet_outside_ms": quiet_outside["longest_ms"],
            "quiet_outside_p95_ms": quiet_outside["p95_ms"], "cpu_s": cpu, "wall_s": took})
        found |= brownout(beats, begin)
        if "pps" in inside:
            quiet_rate, rate = float(quiet_inside["pps"]), float(inside["pps"])
            found["pages_per_s"] = quiet_rate
            found["lost_work_percent"] = 100 * (1 - rate / quiet_rate) if quiet_rate else 0.0
        return found

    def close(self):
        self.observer.close()
        self.system.close()


class Subject:
    """What one system has at one point: its guests, which move at the same time."""

    def __init__(self, tools, name, point):
        self.link = Link(point.link)
        self.scratch = tempfile.TemporaryDirectory(prefix="godwit-bench-", dir=RUNTIME)
        self.guests = []
        try:
            for number in range(point.guests):
                self.guests.append(Guest(tools, name, point, self.link, Path(self.scratch.name) / str(number), number))
        except BaseException:
            self.close()
            raise

    def sample(self):
        found = [None] * len(self.guests)

        def run(number):
            found[number] = self.guests[number].sample()

        threads = [threading.Thread(target=run, args=(number,)) for number in range(1, len(self.guests))]
        for thread in threads:
            thread.start()
        run(0)
        for thread in threads:
            thread.join()
        return found

    def warm_up(self):
        """The first move, there, so that memory is warm on both sides: not timed, but what the processes hold meanwhile."""
        guest = self.guests[0]
        there = 1 - guest.here
        with Sampler(lambda: guest.system.processes(there)) as sampler:
            self.sample()
        size = guest.point.memory_mib
        return {"own_memory_source_mib": sampler.own_mib.get("source"),
                "own_memory_destination_mib": sampler.own_mib.get("destination"),
                "peak_rss_over_guest": max(sampler.peak_mib.values()) / size}

    def hold(self, held):
        """While another system is measured, its guests must not take its CPUs."""
        for guest in self.guests:
            os.kill(guest.system.pid, signal.SIGSTOP if held else signal.SIGCONT)

    @property
    def command(self):
        return " ".join(map(str, self.guests[0].system.command))

    def close(self):
        for guest in self.guests:
            guest.close()
        self.link.close()
        self.scratch.cleanup()


def busy_beside(tools):
    """A guest that spins, as one does that is migrated."""
    return contextlib.closing(Subject(tools, "vmm", idle(256)))


def tcp_mib_s(tools, kind):
    """The best TCP stream of three sizes of write over a link, beside a guest that spins."""
    best = 0
    with busy_beside(tools), contextlib.closing(Link(kind)) as link:
        (here, _), (there, address) = link.hosts
        for size in (64 << 10, 256 << 10, 1 << 20):
            with subprocess.Popen([*there, tools.raw_limits, "serve"], stdout=subprocess.PIPE, text=True) as server:
                port = server.stdout.readline().strip()
                said = subprocess.run([*here, tools.raw_limits, "send", address, port, str(size)], check=True,
                                      capture_output=True, text=True).stdout
            best = max(best, float(said.split("=")[1]))
    return best


def memory_limits(tools):
    """What memory does beside a guest that spins: memcpy and page faults."""
    with busy_beside(tools):
        said = subprocess.run([tools.raw_limits, "memory"], check=True, capture_output=True, text=True).stdout
    return {key: float(value) for key, value in (word.split("=") for word in said.split())}


def observer_resolution(tools):
    with contextlib.closing(Observer(tools.observer, [])) as observer:
        return observer.resolution()


def halted_own_memory_mib(tools):
    """Of `vmm` with a guest that halts, with a timer of 100 Hz."""
    point = Point("halted", "100 Hz", memory_mib=512, image="idle.elf")
    with contextlib.closing(Subject(tools, "vmm", point)) as subject, \
            Sampler(lambda: {"source": subject.guests[0].system.pid}) as sampler:
        time.sleep(0.5)
    return sampler.own_mib["source"]


def start_seconds(tools, runs):
    """From exec of `vmm run` with 512 MiB to the byte that the guest's first instructions send."""
    with tempfile.TemporaryDirectory(prefix="godwit-bench-") as directory:
        image = Path(directory) / "hello.bin"
        # mov dx, 0x3f8; mov al, 'x'; out dx, al; mov al, 16; out 0xf4, al
        image.write_bytes(bytes.fromhex("baf803 b078 ee b010 e6f4"))
        words = [tools.vmm, "run", "--name", "start", "--memory", "512M", "--serial", "stdio", "--control",
                 f"{directory}/control", "--state-dir", directory, image]
        found = []
        for _ in range(runs):
            begin = time.monotonic()
            with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
                first = process.stdout.read(1)
                found.append(time.monotonic() - begin)
                if first != b"x":
                    raise RuntimeError(f"vmm run: {process.stderr.read().decode()}")
    return found
