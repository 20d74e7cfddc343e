"""The systems that are compared. Each starts a guest of ours, moves it to the other of two hosts and says what it knows
of the move; the same guest goes there and back."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from integration import harness
from integration.harness import Failure

DEADLINE = 120  # seconds
MAKE_CERTS = Path(__file__).resolve().parents[1] / "make-certs"


class Host:
    """One of two: a directory, a network, and the serial port of the guest when it is there."""

    def __init__(self, directory, inside, address):
        self.directory = directory
        self.directory.mkdir()
        self.inside = inside
        self.address = address
        self.serial = directory / "serial"

    def popen(self, words, **options):
        log = open(self.directory / "log", "ab")
        with log:
            return subprocess.Popen([*self.inside, *map(str, words)], stdin=subprocess.DEVNULL,
                                    **{"stdout": log, "stderr": log, **options},
                                    env=dict(os.environ, XDG_RUNTIME_DIR=str(self.directory)))


class Vmm:
    """The product, as users run it."""

    def __init__(self, tools, point, hosts, number=0):
        self.tools = tools
        self.point = point
        self.hosts = hosts
        self.name = f"guest{number}"
        self.commands = []
        self.listeners = {}
        self.pid = None

    def start(self):
        command = [self.tools.vmm, "run", "--name", self.name, "--memory", f"{self.point.memory_mib}M", "--append",
                   self.point.parameters, "--serial", f"unix:{self.hosts[0].serial}", self.tools.guests / self.point.image]
        self.commands.append(command)
        self.first = self.hosts[0].popen(command)
        self.pid = self.first.pid

    def expect_at(self, there):
        """A process that waits for the guest."""
        if there in self.listeners:
            return
        host = self.hosts[there]
        log = host.directory / "receive"
        words = [self.tools.vmm, "receive", "--listen", f"tcp:{host.address}:0", "--serial", f"unix:{host.serial}",
                 *self.protection(host)]
        self.commands.append(words)
        with open(log, "wb") as output:
            self.listeners[there] = (host.popen(words, stderr=output), log)

    def protection(self, host):
        """What keeps the link private: options of both sides."""
        if not self.point.tls:
            return () if host.address == "127.0.0.1" else ("--insecure",)
        # In the directory of the first host, for both: the keys are gone with it.
        certificates = self.hosts[0].directory / "tls"
        addresses = ",".join(["host", *sorted({each.address for each in self.hosts})])
        if not certificates.exists():
            subprocess.run([MAKE_CERTS, certificates, addresses], check=True, stdout=subprocess.DEVNULL)
        return ("--tls-dir", certificates / "host")

    def address_of(self, there):
        listener, log = self.listeners[there]
        address = re.compile(r"tcp:[\d.]+:\d+")
        harness.wait_for(lambda: address.search(log.read_text(encoding="utf-8")) or listener.poll() is not None)
        found = address.search(log.read_text(encoding="utf-8"))
        if found is None:
            raise Failure(f"vmm receive ended: {log.read_text(encoding='utf-8')}")
        return found.group(0)

    def move(self, here, there):
        words = [self.tools.vmm, "migrate", self.name, self.address_of(there), "--json", "--streams",
                 self.point.streams, *self.protection(self.hosts[here])]
        self.commands.append(words)
        done = subprocess.run([*self.hosts[here].inside, *map(str, words)], capture_output=True, text=True, check=False,
                              env=dict(os.environ, XDG_RUNTIME_DIR=str(self.hosts[here].directory)), timeout=DEADLINE)
        if done.returncode != 0:
            raise Failure(f"vmm migrate: {done.stdout}{done.stderr}")
        report = json.loads(done.stdout)
        listener, _ = self.listeners[there]
        self.pid = harness.children(listener.pid)[-1]
        return {"total_ms": report["total_ms"], "downtime_ms": report["downtime_ms"], "bytes": report["bytes_sent"],
                "predicted_ms": report["predicted_downtime_ms"], "own_throughput_mib_s": report["throughput_mib_s"],
                "rounds": report["rounds"], "parts": report["downtime"], "setup_ms": report["setup_ms"]}

    def vcpu(self, host):
        """The directory in /proc of the vCPU's thread."""
        del host  # the guest is where it was moved to last
        return next(task for task in Path(f"/proc/{self.pid}/task").iterdir()
                    if (task / "comm").read_text(encoding="utf-8").strip() == "vcpu0")

    def description(self):
        """What was run, for the results."""
        return {"commands": [" ".join(map(str, words)) for words in self.commands]}

    def processes(self, there):
        """Of a move to `there`: {role: pid}, as far as they exist."""
        arriving = harness.children(self.listeners[there][0].pid) if there in self.listeners else []
        return {"source": self.pid} | ({"destination": arriving[-1]} if arriving else {})

    def close(self):
        for listener, _ in self.listeners.values():
            for child in harness.children(listener.pid):
                os.kill(child, signal.SIGKILL)
            listener.kill()
            listener.wait()
        self.first.kill()
        self.first.wait()


class Qmp:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        harness.wait_for(lambda: self.socket.connect_ex(str(path)) == 0)
        self.stream = self.socket.makefile("r")
        self.events = []
        json.loads(self.stream.readline())
        self.call("qmp_capabilities")

    def call(self, command, **arguments):
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            answer = json.loads(self.stream.readline())
            if "event" in answer:
                self.events.append(answer["event"])
            elif "error" in answer:
                raise Failure(f"QEMU: {command}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def wait_event(self, name):
        while name not in self.events:
            answer = json.loads(self.stream.readline())
            if "event" in answer:
                self.events.append(answer["event"])

    def close(self):
        self.stream.close()
        self.socket.close()


class Qemu:
    """qemu-system-x86_64 -M microvm under the same KVM, its bandwidth without limit (the default is 128 MiB/s)."""

    UNLIMITED = 1 << 50  # bytes/s
    PARAMETERS = {
        "default": ({}, []),
        "multifd": ({"multifd-channels": 2}, ["multifd"]),
        # ms: the pause that vmm reaches without being asked. What it is asked for, 300, is QEMU's own default.
        "same-limit": ({"downtime-limit": 2}, []),
    }

    def __init__(self, tools, point, hosts, number=0, configuration="default"):
        self.tools = tools
        self.point = point
        self.hosts = hosts
        self.configuration = configuration
        parameters, self.capabilities = self.PARAMETERS[configuration]
        self.parameters = {"max-bandwidth": self.UNLIMITED, **parameters}
        if "multifd-channels" in parameters:
            self.parameters["multifd-channels"] = max(point.streams, parameters["multifd-channels"])
        self.port = 7400 + number
        self.running = {}
        self.monitors = {}
        self.pid = None
        self.commands = []

    def _launch(self, host, *more):
        place = self.hosts[host]
        monitor = place.directory / "qmp"
        words = ["qemu-system-x86_64", "-M", "microvm", "-accel", "kvm", "-cpu", "host,-arch-capabilities", "-m",
                 self.point.memory_mib, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-kernel",
                 self.tools.guests / self.point.image, "-append", self.point.parameters, "-device",
                 "isa-debug-exit,iobase=0xf4,iosize=4", "-serial", f"unix:{place.serial},server=on,wait=off", "-qmp",
                 f"unix:{monitor},server=on,wait=off", *more]
        monitor.unlink(missing_ok=True)
        place.serial.unlink(missing_ok=True)
        self.commands.append(words)
        self.running[host] = place.popen(words)
        self.monitors[host] = Qmp(monitor)
        self.monitors[host].call("migrate-set-capabilities", capabilities=[
            {"capability": name, "state": True} for name in ("events", *self.capabilities)])
        self.monitors[host].call("migrate-set-parameters", **self.parameters)

    def start(self):
        self._launch(0)
        self.pid = self.running[0].pid

    def expect_at(self, there):
        self._launch(there, "-incoming", "defer")
        self.monitors[there].call("migrate-incoming", uri=self._uri(there))

    def _uri(self, there):
        return f"tcp:{self.hosts[there].address}:{self.port}"

    def move(self, here, there):
        source, target = self.monitors[here], self.monitors[there]
        source.call("migrate", uri=self._uri(there))
        target.wait_event("RESUME")
        status = source.call("query-migrate")
        while status["status"] not in ("completed", "failed"):
            status = source.call("query-migrate")
        if status["status"] == "failed":
            raise Failure(f"QEMU: {status}")
        self._end(here)
        self.pid = self.running[there].pid
        return {"total_ms": max(status["total-time"], 1), "downtime_ms": status["downtime"],
                "bytes": status["ram"]["transferred"], "setup_ms": status.get("setup-time")}

    def vcpu(self, host):
        thread = self.monitors[host].call("query-cpus-fast")[0]["thread-id"]
        return Path(f"/proc/{self.pid}/task/{thread}")

    def description(self):
        monitor = next(iter(self.monitors.values()))
        return {"commands": [" ".join(map(str, words)) for words in self.commands],
                "parameters": monitor.call("query-migrate-parameters"),
                "capabilities": monitor.call("query-migrate-capabilities")}

    def processes(self, there):
        arriving = self.running.get(there)
        return {"source": self.pid} | ({"destination": arriving.pid} if arriving else {})

    def _end(self, host):
        self.monitors.pop(host).close()
        process = self.running.pop(host)
        process.kill()
        process.wait()

    def close(self):
        for host in list(self.running):
            self._end(host)


SYSTEMS = {"vmm": Vmm}
for _name in Qemu.PARAMETERS:
    SYSTEMS[f"qemu-{_name}"] = \
        lambda tools, point, hosts, number=0, name=_name: Qemu(tools, point, hosts, number, name)


def why_no_qemu():
    return "" if shutil.which("qemu-system-x86_64") else "there is no qemu-system-x86_64: apt-get install qemu-system-x86"
