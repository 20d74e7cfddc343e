"""The two hosts of a benchmark: network namespaces of its own, with `cubic` whatever the machine's default is."""

import contextlib
import os
from pathlib import Path

from integration.netns import Namespace

SYSCTL = Path("/proc/sys/net/ipv4")
ADDRESSES = ("10.200.0.1", "10.200.0.2")
BURST = "256k"


def make_namespace():
    namespace = Namespace()
    namespace.ip("link set lo up")
    namespace.run("sh", "-c", f"echo cubic >{SYSCTL}/tcp_congestion_control")
    return namespace


class Link:
    """`kind`: loopback, or bits per second of a veth pair, as tc(8) writes them, or veth for one that is not shaped."""

    def __init__(self, kind):
        self.kind = kind
        first = make_namespace()
        if kind == "loopback":
            self.namespaces = [first]
            self.hosts = [(first.words(), "127.0.0.1")] * 2
            return
        second = make_namespace()
        self.namespaces = [first, second]
        first.ip(f"link add bench0 type veth peer name bench0 netns {second.pid}")
        for namespace, address in zip(self.namespaces, ADDRESSES):
            namespace.ip(f"address add {address}/24 dev bench0\nlink set bench0 up")
            if kind != "veth":
                namespace.run("tc", "qdisc", "add", "dev", "bench0", "root", "tbf", "rate", kind, "burst", BURST,
                              "latency", "20ms")
        self.hosts = [(namespace.words(), address) for namespace, address in zip(self.namespaces, ADDRESSES)]

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
