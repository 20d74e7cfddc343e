"""The two hosts of a benchmark: network namespaces of its own, with `cubic` whatever the machine's default is."""

import contextlib
import os
import subprocess
from pathlib import Path

SYSCTL = Path("/proc/sys/net/ipv4")
ADDRESSES = ("10.200.0.1", "10.200.0.2")
BURST = "256k"


def run(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")


class Namespace:
    """Lives as long as the process in it, which ends with us."""

    def __init__(self):
        self.holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.holder.stdin.write(b"\n")
        self.holder.stdin.flush()
        self.holder.stdout.readline()
        self.inside = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net"]
        self.run("ip", "link", "set", "lo", "up")
        self.run("sh", "-c", f"echo cubic >{SYSCTL}/tcp_congestion_control")

    def run(self, *words):
        run(*self.inside, *words)

    def close(self):
        self.holder.stdin.close()
        self.holder.wait()
        self.holder.stdout.close()


class Link:
    """`kind`: loopback, or bits per second of a veth pair, as tc(8) writes them, or veth for one that is not shaped."""

    def __init__(self, kind):
        self.kind = kind
        first = Namespace()
        if kind == "loopback":
            self.namespaces = [first]
            self.hosts = [(first.inside, "127.0.0.1")] * 2
            return
        second = Namespace()
        self.namespaces = [first, second]
        first.run("ip", "link", "add", "bench0", "type", "veth", "peer", "name", "bench0", "netns",
                  str(second.holder.pid))
        for namespace, address in zip(self.namespaces, ADDRESSES):
            namespace.run("ip", "address", "add", f"{address}/24", "dev", "bench0")
            namespace.run("ip", "link", "set", "bench0", "up")
            if kind != "veth":
                namespace.run("tc", "qdisc", "add", "dev", "bench0", "root", "tbf", "rate", kind, "burst", BURST,
                              "latency", "20ms")
        self.hosts = [(namespace.inside, address) for namespace, address in zip(self.namespaces, ADDRESSES)]

    def close(self):
        for namespace in self.namespaces:
            namespace.close()


@contextlib.contextmanager
def cubic_allowed():
    """Only what the machine allows can be a namespace's default; put back as it was."""
    allowed = SYSCTL / "tcp_allowed_congestion_control"
    before = allowed.read_text(encoding="ascii").strip()
    try:
        if "cubic" not in before.split():
            allowed.write_text(f"{before} cubic", encoding="ascii")
        yield
    finally:
        allowed.write_text(before, encoding="ascii")


def why_not():
    if os.geteuid() != 0:
        return "network namespaces need root"
    if "cubic" not in (SYSCTL / "tcp_available_congestion_control").read_text(encoding="ascii").split():
        return "the kernel has no TCP cubic"
    return ""
