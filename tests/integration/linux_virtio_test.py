#!/usr/bin/python3
"""Linux with two vCPUs under load, with a disk that both hosts share and a network bridged to the link between them, moved
there and back while a peer in a namespace of the second host talks to it."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from guests import disk_image  # noqa: E402
from integration import amdv_bed, harness, linux_test  # noqa: E402
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
    """A namespace of a host, on its bridge, that pings the guest and sends it numbered lines to echo. What comes back is
    told with the host's uptime in seconds, and read as it comes: the host's end of a channel holds little."""

    STAMPED = "while read -r line; do read -r up _ </proc/uptime; echo $up $line; done"

    def __init__(self, host):
        self.host = host
        self.namespace = host.machine.start("exec unshare -n sleep 100000")
        inside = f"nsenter -t {self.namespace.pid} -n"
        host.shell(f"set -e; {IP} link add veth0 type veth peer name veth1 netns {self.namespace.pid}; "
                   f"{IP} link set veth0 master br0 up; {inside} {IP} address add 10.9.0.8/24 dev veth1; "
                   f"{inside} {IP} link set veth1 up")
        self.ping = self.start(f"{inside} ping -i 0.2 {GUEST} | {self.STAMPED}")
        self.stream = self.start(
            "n=0; while [ ! -e /tmp/stop ]; do echo line $n; n=$((n + 1)); usleep 20000; done | "
            f"{inside} socat -t 60 - TCP:{GUEST}:7 | {self.STAMPED}")

    def start(self, command):
        return harness.Process([command], self.host.machine.start(command))

    def end(self):
        """What came back, every line once: [(seconds, text)] of the stream and of ping, and of how many pings."""
        self.host.shell("touch /tmp/stop")
        check(self.stream.wait() == 0, "the TCP connection broke")
        lines = stamped(self.stream)
        check([line for _, line in lines] == [f"line {number}" for number in range(len(lines))],
              f"echoed wrongly: {lines}")
        self.host.shell("killall -INT ping")
        self.ping.wait()
        pings = stamped(self.ping)
        self.namespace.kill()
        for _ in self.namespace.stdout:
            pass
        counts = re.search(r"(\d+) packets transmitted, (\d+) packets received", self.ping.log())
        check(counts, f"ping says {pings[-5:]}")
        replies = [ping for ping in pings if "seq=" in ping[1]]
        check(len(replies) == int(counts[2]), f"{len(replies)} replies, but ping says {counts[0]}")
        return lines, replies, int(counts[1])


def stamped(process):
    found = []
    for line in process.log().splitlines():
        seconds, _, text = line.strip().partition(" ")
        if text:
            found.append((float(seconds), text))
    return found


def longest_gap(stamps):
    """In ms, with the clock's resolution of 10."""
    return max(1000 * (later - earlier) for (earlier, _), (later, _) in zip(stamps, stamps[1:]))


def under_load(bed):
    for host in (bed.a, bed.b):
        bridge(host)
        host.listener = host.receive("--disk", DISK, "--net", NET)
    guest = linux_test.start(bed.a, LOAD, 2, extra=("--disk", DISK, "--net", f"{NET},mac=52:54:00:00:01:01", "--rng"))
    peer = Peer(bed.b)
    heard = []
    verdict = linux_test.there_and_back(bed, guest, at_last=lambda: heard.append(peer.end()))
    lines, replies, pings = heard[0]
    check(len(lines) > 1 and len(replies) > 1, "nothing was echoed")
    print(f"  {len(lines)} lines came back in order, longest gap {longest_gap(lines):.0f} ms; {pings - len(replies)} of "
          f"{pings} pings were lost, longest gap {longest_gap(replies):.0f} ms")
    fault = disk_image.fault(bed.a.machine.disk, int(verdict["disk_acked"]),
                             (DISK_MIB << 20) // disk_image.BLOCK_BYTES)
    check(not fault, f"the shared disk: {fault}")


TESTS = {f.__name__: f for f in (under_load,)}

if __name__ == "__main__":
    amdv_bed.main(TESTS, linux=True, disk_mib=DISK_MIB)
