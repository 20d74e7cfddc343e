"""One sample: a quiet window, then a move, and what the guest and the outside saw in each."""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmark.link import Link
from benchmark.memory import Sampler
from benchmark.observer import Observer
from benchmark.periodic import Periodic
from benchmark.points import Point, idle
from benchmark.systems import SYSTEMS, Host

RUNTIME = "/dev/shm"  # as /run is where users have their sockets and records: no journal to wait for
SETTLE = 0.03  # seconds: what the guest prints would delay its beats
QUIET = (0.1, 4.0)  # seconds, at least and at most; between them as long as the move before
AFTER = 0.1  # seconds after a move in which the guest may still be slower


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


class RunDelay(Periodic):
    """How long a thread has been ready to run but did not, looked at every few milliseconds while it is open."""

    PERIOD = 0.005  # seconds

    def __init__(self, task):
        super().__init__(self.PERIOD)
        self.file = open(task / "schedstat", encoding="ascii")
        self.looks = []  # (time.monotonic(), seconds)

    def look(self):
        """False once the thread has ended."""
        try:
            self.file.seek(0)
            self.looks.append((time.monotonic(), int(self.file.read().split()[1]) / 1e9))
        except (ProcessLookupError, IndexError):
            return False
        return True

    def __exit__(self, *error):
        super().__exit__(*error)
        self.file.close()


def stolen_percent(looks, begin, end):
    """Of the time between two moments a thread was ready, but did not run; None where it was too short to say."""
    inside = [look for look in looks if begin <= look[0] <= end]
    if len(inside) < 3:
        return None
    (first, before), (last, after) = inside[0], inside[-1]
    return 100 * (after - before) / (last - first)


def pause_seen(beats, here, there):
    """The last beat from where the guest was, and the first from where it is."""
    return max(at for host, at in beats if host == here), min(at for host, at in beats if host == there)


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
        with RunDelay(self.system.vcpu(self.here)) as before:
            found = self.system.move(self.here, there)
        took = time.monotonic() - begin
        cpu = busy_seconds() - cpu
        with RunDelay(self.system.vcpu(there)) as after:
            time.sleep(AFTER)
        self.observer.end_connect(there)
        beats = self.observer.beats()
        outside = self.observer.window()
        inside = self.observer.ask(there, "status")
        paused, resumed = pause_seen(beats, self.here, there)
        found.update({
            "blackout_ms": float(inside["gap_us"]) / 1000, "outside_ms": outside["longest_ms"],
            "quiet_blackout_ms": float(quiet_inside["gap_us"]) / 1000, "quiet_outside_ms": quiet_outside["longest_ms"],
            "cpu_s": cpu, "wall_ms": took * 1000,
            "throughput_mib_s": found["bytes"] / 2**20 / found["total_ms"] * 1000,
            "pause_outside_ms": (resumed - paused) * 1000,
            "brownout_copy_percent": stolen_percent(before.looks, begin, paused),
            "brownout_after_percent": stolen_percent(after.looks, resumed, resumed + AFTER)})
        self.here = there
        self.quiet = min(max(took, QUIET[0]), QUIET[1])
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
        with ThreadPoolExecutor(len(self.guests)) as pool:
            return list(pool.map(Guest.sample, self.guests))

    def warm_up(self):
        """The first move, there, so that memory is warm on both sides: not timed, but what the processes hold meanwhile,
        and what was run."""
        guest = self.guests[0]
        there = 1 - guest.here
        with Sampler(lambda: guest.system.processes(there)) as sampler:
            self.sample()
        size = guest.point.memory_mib
        return {"looks": sampler.looks, **guest.system.description(),
                "own_memory_source_mib": sampler.own_mib.get("source"),
                "own_memory_destination_mib": sampler.own_mib.get("destination"),
                "peak_rss_over_guest": max(sampler.peak_mib.values()) / size}

    def hold(self, held):
        """While another system is measured, its guests must not take its CPUs."""
        for guest in self.guests:
            os.kill(guest.system.pid, signal.SIGSTOP if held else signal.SIGCONT)

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


def resting_own_memory_mib(tools, image):
    """Of `vmm` with a guest that does nothing: pulse, which spins, or idle, which halts with a timer of 100 Hz."""
    point = Point("resting", image, memory_mib=512, image=image)
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
