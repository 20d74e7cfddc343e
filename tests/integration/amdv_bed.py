"""The harness for two emulated hosts: what runs in them is driven from outside, as harness.Bed drives two directories."""

import random
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from integration import harness  # noqa: E402
from integration.harness import check  # noqa: E402
from support import amdv_host, amdv_overlay, linux_guest  # noqa: E402

DEADLINE = 120  # seconds: everything takes ten times as long there
TSC_SECONDS = 3600  # how far the second host's TSC is ahead


class Serial(harness.Serial):
    """A serial port whose socket is in a host: socat carries it to a channel."""

    def __init__(self, host, path):
        self.command = host.machine.start(
            f"until [ -S {path} ]; do usleep 5000; done; exec socat - UNIX-CONNECT:{path}", interactive=True)
        super().__init__(f"{host.name}:{path}", self.command.channel.socket)

    def line(self, timeout=None):
        if self.socket is None:
            return None
        line = super().line(timeout)
        if line is not None and line.startswith(amdv_host.STATUS.decode()):
            self.command.end(int(line.split()[1]))
            self.log = self.log[:self.log.rindex(b"\n" + amdv_host.STATUS)]  # what the guest sent, to the byte
            self.socket = None
            return None
        return line

    def close(self):
        """Ends socat, if the other side has not ended it."""
        if self.socket is not None:
            self.command.kill()
            while self.line() is not None:
                pass


class Host(harness.Host):
    """A directory of an emulated host, as harness.Host is one of this."""

    def __init__(self, bed, machine, name):
        self.bed = bed
        self.machine = machine
        self.name = name
        self.ADDRESS = machine.address
        self.LINK = ("--insecure",) if machine.address else ()
        self.directory = Path(f"/run/godwit-{bed.number}{name}")
        self.prefix = f"cd {self.directory} && export XDG_RUNTIME_DIR={self.directory} && "
        machine.run(f"mkdir -p {self.directory}")

    def start(self, words):
        return self.machine.start(f"{self.prefix}exec {shlex.join(words)}")

    def call(self, *args, status=0):
        words = [str(self.bed.binary), *self.words(*args)]
        found, output = self.machine.run(f"{self.prefix}{shlex.join(words)} 2>stderr")
        if status is not None and found != status:
            errors = self.machine.run(f"cat {self.directory}/stderr")[1]
            check(False, f"vmm {' '.join(words[1:])} on {self.name}: exit {found}: {output}{errors}")
        return subprocess.CompletedProcess(words, found, output, "")

    def serial(self, name="guest"):
        return Serial(self, self.serial_path(name))

    def control(self, name="guest"):
        raise NotImplementedError("a control socket is in the host")

    def shell(self, command):
        """What the host's shell says to one or more lines; they must succeed."""
        status, output = self.machine.run(command)
        check(status == 0, f"{self.name}: {command}: exit {status}: {output}")
        return output


def on_one_host(bed):
    """Moves b beside a."""
    bed.b = Host(bed, bed.a.machine, "b")


class Bed:
    """Everything one test makes on two hosts that go on when it ends. a and b may be on the same."""

    def __init__(self, machines, options, number):
        self.number = number
        self.binary = f"{amdv_overlay.PLACE}/build/bin/vmm"
        self.guests = Path(f"{amdv_overlay.PLACE}/build/guests")
        self.gate = None
        self.options = options
        self.random = random.Random(options.seed)
        self.processes = []
        self.machines = machines
        self.a, self.b = (Host(self, machine, name) for machine, name in zip(machines, "ab"))

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            for process in self.processes:
                print(f"--- {' '.join(process.args)}\n{process.log()}", file=sys.stderr)
        for machine in self.machines:
            machine.run("killall -9 vmm socat")
        for process in self.processes:
            process.popen.wait(DEADLINE)


def main(tests, linux=False, disk_mib=0):
    """Runs the tests named on the command line, or all, on the same two hosts; tests is a dictionary of functions of
    (bed)."""
    parser = harness.parser()
    options = parser.parse_args()
    harness.DEADLINE = DEADLINE
    harness.LIMITS = ("--max-downtime", "10s")
    try:
        cache = amdv_host.Cache(options.build)
        if linux:
            linux_guest.Image(options.build)
        archive = amdv_overlay.packed(cache, options.build, linux)
    except (amdv_host.Unavailable, linux_guest.Unavailable) as reason:
        print(f"skipped: {reason}")
        sys.exit(harness.SKIP)

    def run():
        with amdv_host.Hosts(cache, [archive], 2, TSC_SECONDS, disk_mib) as machines:
            failed = run_on(machines, tests, options)
            for machine in machines:
                machine.check()
            return failed

    sys.exit(0 if amdv_host.attempt(run) == [] else 1)


def run_on(machines, tests, options):
    numbers = iter(range(len(tests)))

    def in_bed(test):
        def run(_):
            with Bed(machines, options, next(numbers)) as bed:
                test(bed)
        return run

    return harness.run_tests({name: in_bed(test) for name, test in tests.items()}, options)
