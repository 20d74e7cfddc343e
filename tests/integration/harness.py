"""Drives real `vmm` processes: two hosts on one machine are two runtime directories.

Nothing here waits for time to pass: it waits for a line on a serial port, a line on a log, an event of a gate or the
end of a process, each with a deadline that only a failure reaches.
"""

import argparse
import fcntl
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from integration.acceptor import Acceptor

SKIP = 77
KVM_GET_API_VERSION = 0xAE00
DEADLINE = float(os.environ.get("GODWIT_DEADLINE", "60"))  # seconds
# Of a move that is not about limits. On an emulated host all memory takes seconds to hash.
LIMITS = ("--max-downtime", os.environ.get("GODWIT_MAX_DOWNTIME", "300ms"))
PASS_STATUS = (16 << 1) | 1
FAIL_STATUS = (17 << 1) | 1


class Failure(Exception):
    pass


class Skipped(Exception):
    """What one test of several needs is not here."""


def check(condition, text):
    if not condition:
        raise Failure(text)


def wait_for(condition):
    """For what shows only when one looks: in /proc, or a socket that is not there yet."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        check(time.monotonic() < deadline, "what a test waited for did not happen")
        select.select([], [], [], 0.005)


def wait_closed(connection):
    """Until the other side has closed a connection that has not said enough to be answered."""
    connection.settimeout(DEADLINE)
    try:
        check(connection.recv(1) == b"", "a stranger is answered")
    except TimeoutError:
        raise Failure("a stranger's connection is kept") from None
    except ConnectionResetError:
        pass


def kvm_reason():
    """Why /dev/kvm cannot be used here; empty if it can."""
    try:
        with open("/dev/kvm", "rb+", buffering=0) as kvm:
            version = fcntl.ioctl(kvm, KVM_GET_API_VERSION)
    except OSError as error:
        return f"/dev/kvm: {error.strerror}"
    return "" if version == 12 else f"/dev/kvm has API version {version}, not 12"


class Serial:
    """The serial port of a guest, on a Unix socket or an open one."""

    def __init__(self, path, connected=None):
        self.path = str(path)
        self.socket = connected
        self.buffer = b""
        self.log = b""

    def connect(self):
        deadline = time.monotonic() + DEADLINE
        while self.socket is None:
            candidate = socket.socket(socket.AF_UNIX)
            try:
                candidate.connect(self.path)
                self.socket = candidate
            except OSError as error:
                candidate.close()
                check(time.monotonic() < deadline, f"{self.path}: {error}")
                select.select([], [], [], 0.005)
        return self

    def close(self):
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def send(self, line):
        self.socket.sendall(line.encode() + b"\n")

    def line(self, timeout=None):
        """The next whole line; None at the end of the connection."""
        deadline = time.monotonic() + (timeout or DEADLINE)
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            check(left > 0, f"{self.path}: no line in time; so far {self.log[-400:]!r}")
            if not select.select([self.socket], [], [], left)[0]:
                continue
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self.buffer += data
            self.log += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode(errors="replace").rstrip("\r")

    def expect(self, verb):
        """The next line `<guest> <verb> k=v ..`, as a dictionary. A FAIL line is a failure."""
        while True:
            line = self.line()
            check(line is not None, f"{self.path}: ended before `{verb}`; {self.log[-400:]!r}")
            words = line.split()
            if len(words) < 2:
                continue
            if words[1] == "FAIL" and verb != "FAIL":
                raise Failure(f"the guest says: {line}")
            if words[1] == verb:
                return dict(word.split("=", 1) for word in words[2:] if "=" in word)

    def check(self):
        """The guest's own self-check."""
        verdict = self.ask("check")
        check(verdict["ok"] == "1", f"the guest found {verdict}")

    def ask(self, command, verb=None):
        self.send(command)
        return self.expect(verb or command.split()[0])


class Control:
    """A control socket spoken to directly: requests are served in order, so an answer proves that those before it
    were taken."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(str(path))
        self.stream = self.socket.makefile("r")

    def send(self, **request):
        self.socket.sendall(json.dumps(request).encode() + b"\n")

    def answer(self, request_id):
        while True:
            line = self.stream.readline()
            check(line, "the control socket was closed")
            reply = json.loads(line)
            if reply.get("id") == request_id:
                return reply

    def taken(self):
        """Returns once every request so far has been taken; the guest's status."""
        self.send(command="status", id="taken")
        return self.answer("taken")["status"]


class Group(subprocess.Popen):
    """A process that is killed with its children."""

    def kill(self):
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


class Process:
    """A vmm process with its log. `popen` is a subprocess.Popen, or what does as one."""

    def __init__(self, args, popen):
        self.args = args
        self.popen = popen
        self.lines = []
        self.changed = threading.Condition()
        self.ended = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for raw in self.popen.stdout:
            with self.changed:
                self.lines.append(raw.decode(errors="replace").rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    @property
    def pid(self):
        return self.popen.pid

    def log(self):
        with self.changed:
            return "\n".join(self.lines)

    def wait_line(self, pattern):
        """The match of the first line of the log that the pattern is found in."""
        seen = 0
        deadline = time.monotonic() + DEADLINE
        with self.changed:
            while True:
                for line in self.lines[seen:]:
                    match = re.search(pattern, line)
                    if match:
                        return match
                seen = len(self.lines)
                left = deadline - time.monotonic()
                check(not self.ended and left > 0, f"no line like {pattern!r} from {self.args[:3]}: {self.lines}")
                self.changed.wait(left)

    def wait(self):
        """The exit status, once the process has ended and its log was read to the end."""
        try:
            status = self.popen.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.args[:3]} did not end: {self.log()}") from None
        with self.changed:
            check(self.changed.wait_for(lambda: self.ended, DEADLINE), f"the log of {self.args[:3]} did not end")
        return status

    def interrupt(self):
        """Ctrl-C for a process that waits for signals."""

        def mask(which):
            text = Path(f"/proc/{self.pid}/status").read_text()
            return int(text.split(f"{which}:")[1].split()[0], 16) >> (signal.SIGINT - 1) & 1

        # Blocked, and the one before it taken: a signal that is pending already would not count.
        wait_for(lambda: mask("SigBlk") and not mask("ShdPnd"))
        os.kill(self.pid, signal.SIGINT)

    def kill(self):
        self.popen.kill()
        self.popen.wait()


def stop_process(pid):
    """Returns when none of its threads runs any more: the signal alone says nothing of that."""
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: all((task / "stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
                         for task in Path(f"/proc/{pid}/task").iterdir()))


def children(pid):
    """None of a process that has ended."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(child) for child in text.split()]


class Gate:
    """Holds gated_vmm processes at named phases (tests/support/gated_vmm.cpp)."""

    def __init__(self):
        server = socket.create_server(("127.0.0.1", 0), backlog=32)
        self.port = str(server.getsockname()[1])
        self.hold = set()
        self.held = {}
        self.seen = []
        self.changed = threading.Condition()
        self.acceptor = Acceptor(server, self._take)

    def _take(self, connection):
        threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        stream = connection.makefile("r")
        while line := self._next(stream):
            role, phase, pid = line.split()
            with self.changed:
                self.seen.append((role, phase))
                if (role, phase) in self.hold:
                    connection.sendall(b"hold\n")
                    self.held.setdefault((role, phase), []).append((connection, int(pid)))
                else:
                    try:
                        connection.sendall(b"go\n")
                    except OSError:
                        pass
                self.changed.notify_all()

    @staticmethod
    def _next(stream):
        try:
            return stream.readline()
        except OSError:
            return ""  # the process was killed

    def hold_at(self, role, phase):
        with self.changed:
            self.hold.add((role, phase))

    def let_others_pass(self, role, phase):
        """Whoever is held there stays; who comes now is not."""
        with self.changed:
            self.hold.discard((role, phase))

    def wait_held(self, role, phase, count=1):
        """The pid of the process that is held there; of several, the last one's."""
        with self.changed:
            reached = self.changed.wait_for(lambda: len(self.held.get((role, phase), ())) >= count, DEADLINE)
            check(reached, f"{role} never reached {phase}; seen {self.seen}")
            return self.held[(role, phase)][-1][1]

    def wait_seen(self, role, phase):
        with self.changed:
            reached = self.changed.wait_for(lambda: (role, phase) in self.seen, DEADLINE)
            check(reached, f"{role} never reached {phase}; seen {self.seen}")

    def release(self, role, phase):
        with self.changed:
            self.hold.discard((role, phase))
            held = self.held.pop((role, phase))
        for connection, _ in held:
            try:
                connection.sendall(b"go\n")
            except OSError:
                pass  # it was killed meanwhile

    def close(self):
        self.acceptor.close()


class Host:
    """A runtime directory: names, control sockets and records of one host. Processes run in it, so that whatever they
    make by a relative path is in it too."""

    ADDRESS = "127.0.0.1"
    # Commands that open connections, and what they are told where ADDRESS is not this machine's own.
    CONNECTING = ("receive", "migrate", "preflight")
    LINK = ()

    def __init__(self, bed, name):
        self.bed = bed
        self.name = name
        self.directory = bed.directory / name
        self.directory.mkdir()
        self.env = dict(os.environ, XDG_RUNTIME_DIR=str(self.directory))
        if bed.gate:
            self.env["GODWIT_GATE"] = bed.gate.port

    def words(self, *args):
        link = self.LINK if args[0] in self.CONNECTING and "--tls-dir" not in args else ()
        return [str(word) for word in (*args, *link)]

    def vmm(self, command, *args, binary=None):
        words = [str(binary or self.bed.binary), *self.words(command, *args)]
        process = Process(words, self.start(words))
        self.bed.processes.append(process)
        return process

    def start(self, words):
        return Group(words, env=self.env, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                     stderr=subprocess.STDOUT, start_new_session=True)

    def call(self, *args, status=0):
        """A short command: (exit status, standard output)."""
        done = subprocess.run([str(self.bed.binary), *self.words(*args)], env=self.env, capture_output=True,
                              timeout=DEADLINE, check=False, text=True)
        check(status is None or done.returncode == status,
              f"vmm {' '.join(map(str, args))}: exit {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def json(self, *args, status=0):
        done = self.call(*args, "--json", status=status)
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise Failure(f"vmm {args}: not JSON: {done.stdout!r} {done.stderr!r}") from None

    def serial_path(self, name):
        return self.directory / f"{name}.serial"

    def serial(self, name="guest"):
        """The serial port of a guest, connected."""
        return Serial(self.serial_path(name)).connect()

    def run(self, image, *args, name="guest", memory="64M", append="", cpus=1):
        process = self.vmm("run", "--name", name, "--memory", memory, "--cpus", cpus, "--append", append, "--serial",
                           f"unix:{self.serial_path(name)}", *args, self.bed.guests / image)
        process.serial = self.serial(name)
        return process

    def receive(self, *args, name="guest"):
        process = self.vmm("receive", "--listen", f"tcp:{self.ADDRESS}:0", "--serial", f"unix:{self.serial_path(name)}",
                           *args)
        process.address = process.wait_line(r"(tcp:[\d.]+:\d+)").group(1)
        return process

    def migrate(self, address, *args, name="guest", status=0):
        return self.json("migrate", name, address, *args, status=status)

    def control(self, name="guest"):
        return Control(self.directory / "vmm" / f"{name}.sock")

    def status(self, name="guest"):
        return self.json("status", name)


class Bed:
    """Everything a test made, and its end."""

    def __init__(self, options, gated=False):
        self.build = Path(options.build).resolve()
        self.binary = self.build / "bin" / ("gated_vmm" if gated else "vmm")
        self.guests = self.build / "guests"
        self.directory = Path(tempfile.mkdtemp(prefix="godwit-"))
        self.processes = []
        self.gate = Gate() if gated else None
        self.options = options
        self.random = random.Random(options.seed)
        self.a = self.make_host("a")
        self.b = self.make_host("b")

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            for process in self.processes:
                print(f"--- {' '.join(process.args)}\n{process.log()}", file=sys.stderr)
        for process in self.processes:
            process.kill()
        self._kill_the_rest()
        if self.gate:
            self.gate.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        return False

    def make_host(self, name):
        return Host(self, name)

    def show_manifests(self, address, name="guest"):
        """What the peer of tests/support/hostile_manifest.cpp was answered: the codes by what it showed, and a log."""
        done = subprocess.run([str(self.build / "bin" / "hostile_manifest"), address, str(self.directory / "bait"),
                               name], capture_output=True, text=True, timeout=DEADLINE, check=False)
        check(done.returncode == 0, done.stdout + done.stderr)
        return {line.split()[0]: set(line.split()[1:]) for line in done.stdout.splitlines()}, done.stderr

    def _kill_the_rest(self):
        """Processes of guests leave their listener's group: they are known by their runtime directory."""
        mark = f"XDG_RUNTIME_DIR={self.directory}/".encode()
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                pass  # it ended meanwhile


def parser():
    result = argparse.ArgumentParser()
    result.add_argument("--build", required=True)
    result.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    result.add_argument("--moves", type=int, default=0, help="moves a guest makes; 0: the test's own number")
    result.add_argument("names", nargs="*")
    return result


def main(tests):
    """Runs the tests named on the command line, or all; tests is a dictionary of functions of (options)."""
    options = parser().parse_args()
    reason = kvm_reason()
    if reason:
        print(f"skipped: {reason}")
        sys.exit(SKIP)
    sys.exit(1 if run_tests(tests, options) else 0)


def run_tests(tests, options):
    """The names of those that failed."""
    unknown = set(options.names) - set(tests)
    if unknown:
        sys.exit(f"no such test: {', '.join(sorted(unknown))}")
    print(f"seed {options.seed} (--seed {options.seed} repeats this)", flush=True)
    failed = []
    for name in options.names or tests:
        start = time.monotonic()
        try:
            tests[name](options)
            print(f"passed {name} in {time.monotonic() - start:.1f} s", flush=True)
        except Skipped as reason:
            print(f"skipped {name}: {reason}", flush=True)
        except (Failure, subprocess.TimeoutExpired) as failure:
            print(f"FAILED {name}: {failure}", flush=True)
            failed.append(name)
    return failed
