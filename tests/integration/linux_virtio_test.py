#!/usr/bin/python3
"""Linux with two vCPUs under load, with a disk that both hosts share and a network bridged to the link between them, moved
there and back while a peer in a namespace of the second host talks to it."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from guests import disk_image  # noqa: E402
from integration import amdv_bed, linux_test  # noqa: E402
from integration.harness import check  # noqa: E402
from support import amdv_overlay  # noqa: E402

IP = f"{amdv_overlay.PLACE}/build/bin/ip"
GUEST = "10.9.0.9"
DISK_MIB = 8
DISK = "id=disk,path=/dev/vda,direct"
NET = "id=net,tap=tap0"
LOAD = f"godwit.cpu=1 godwit.mem=16 godwit.pps=500 godwit.print=10 godwit.disk={DISK_MIB} godwit.ip={GUEST}/24"


def bridge(host):
    """The link, and a tap for a guest, on one bridge, which takes over the host's address."""
    host.shell(f"set -e; {IP} link add br0 type bridge; {IP} address flush dev eth0; {IP} link set eth0 master br0; "
               f"{IP} tuntap add tap0 mode tap; {IP} link set tap0 master br0 up; "
               f"{IP} address add {host.ADDRESS}/24 dev br0; {IP} link set br0 up")


class Peer:
    """A namespace of a host, on its bridge, that pings the guest and sends it numbered lines to echo."""

    def __init__(self, host):
        self.host = host
        self.namespace = host.machine.start("exec unshare -n sleep 100000")
        inside = f"nsenter -t {self.namespace.pid} -n"
        host.shell(f"set -e; {IP} link add veth0 type veth peer name veth1 netns {self.namespace.pid}; "
                   f"{IP} link set veth0 master br0 up; {inside} {IP} address add 10.9.0.8/24 dev veth1; "
                   f"{inside} {IP} link set veth1 up")
        self.ping = host.machine.start(f"exec {inside} ping -i 0.2 {GUEST}")
        self.stream = host.machine.start(
            "n=0; while [ ! -e /tmp/stop ]; do echo line $n; n=$((n + 1)); usleep 20000; done | "
            f"{inside} socat -t 60 - TCP:{GUEST}:7")

    def end(self):
        """How many lines came back, every one once; and what ping says."""
        self.host.shell("touch /tmp/stop")
        lines = [line.decode().strip() for line in self.stream.stdout]
        check(self.stream.wait() == 0, f"the TCP connection broke: {lines[-3:]}")
        check(lines == [f"line {number}" for number in range(len(lines))], f"echoed wrongly: {lines}")
        self.ping.kill("INT")
        said = b"".join(self.ping.stdout).decode()
        self.namespace.kill()
        for _ in self.namespace.stdout:
            pass
        counts = re.search(r"(\d+) packets transmitted, (\d+) packets received", said)
        check(counts, f"ping says {said}")
        return len(lines), int(counts[1]), int(counts[2])


def under_load(bed):
    for host in (bed.a, bed.b):
        bridge(host)
        host.listener = host.receive("--disk", DISK, "--net", NET)
    guest = linux_test.start(bed.a, LOAD, 2, extra=("--disk", DISK, "--net", f"{NET},mac=52:54:00:00:01:01", "--rng"))
    peer = Peer(bed.b)
    verdict = linux_test.there_and_back(bed, guest)
    lines, sent, received = peer.end()
    print(f"  the peer got {lines} lines back; {sent - received} of {sent} pings were lost")
    check(lines > 0, "nothing was echoed")
    fault = disk_image.fault(bed.a.machine.disk, int(verdict["disk_acked"]),
                             (DISK_MIB << 20) // disk_image.BLOCK_BYTES)
    check(not fault, f"the shared disk: {fault}")


TESTS = {f.__name__: f for f in (under_load,)}

if __name__ == "__main__":
    amdv_bed.main(TESTS, linux=True, disk_mib=DISK_MIB)
