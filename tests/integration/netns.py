"""Two hosts and a peer in network namespaces, joined as machines are by switches:

    a: br0 = { tap0, uplink } ---veth--- b: br0 = { tap0, uplink, peer } ---veth--- peer: eth0

The namespaces have no names: each lives as long as a process that waits for us, so that nothing stays behind, however
the test ends.
"""

import contextlib
import json
import os
import shutil
import subprocess

from integration import harness

TAP = "tap0"
# By their paths: busybox runs commands of its own where it has one of that name.
IP, BRIDGE_TOOL = (shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or tool
                   for tool in ("ip", "bridge"))
GUEST_ADDRESS = "10.9.0.2"
GUEST_MAC = "52:54:00:12:34:56"
PEER_ADDRESS = "10.9.0.1"
HOST_ADDRESSES = {"a": "10.9.0.101", "b": "10.9.0.102"}

BRIDGE = """\
link set lo up
link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
address add {address}/24 dev br0
link set br0 up
tuntap add {tap} mode tap vnet_hdr
link set {tap} master br0 up
"""


class Namespace:
    def __init__(self):
        self.holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.holder.stdin.write(b"\n")
        with contextlib.suppress(BrokenPipeError):
            self.holder.stdin.flush()
        if self.holder.stdout.readline() != b"\n":
            raise harness.Skipped("no network namespace can be made here: be root")

    @property
    def pid(self):
        return self.holder.pid

    def words(self, *words):
        """The command that runs there."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *words]

    def run(self, *words, stdin=None):
        done = subprocess.run(self.words(*words), input=stdin, capture_output=True, text=True, check=False,
                              timeout=harness.DEADLINE)
        harness.check(done.returncode == 0, f"{' '.join(words)}: {done.stderr}{done.stdout}")
        return done.stdout

    def ip(self, commands):
        self.run(IP, "-batch", "-", stdin=commands)

    def port_of(self, mac):
        """Where the bridge believes the station to be; None where it does not know."""
        for entry in json.loads(self.run(BRIDGE_TOOL, "-json", "fdb", "show", "br", "br0")):
            if entry["mac"] == mac and "permanent" not in (entry.get("state"), *entry.get("flags", ())):
                return entry["ifname"]
        return None

    def close(self):
        self.holder.stdin.close()
        self.holder.wait()
        self.holder.stdout.close()


class Host(harness.Host):
    """A harness.Host whose processes have a network of their own."""

    LINK = ("--insecure",)

    def __init__(self, bed, name, namespace):
        super().__init__(bed, name)
        self.namespace = namespace
        self.ADDRESS = HOST_ADDRESSES[name]

    def start(self, words):
        return super().start(self.namespace.words(*words))


class Bed(harness.Bed):
    def __init__(self, options, **settings):
        if not os.path.exists("/dev/net/tun"):
            raise harness.Skipped("no /dev/net/tun here: load the module tun")
        self.namespaces = {name: Namespace() for name in ("a", "b", "peer")}
        super().__init__(options, **settings)

    def __enter__(self):
        super().__enter__()
        try:
            self._join()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *failure):
        try:
            return super().__exit__(*failure)
        finally:
            for namespace in self.namespaces.values():
                namespace.close()

    def make_host(self, name):
        return Host(self, name, self.namespaces[name])

    def _join(self):
        a, b, peer = self.namespaces.values()
        for name in ("a", "b"):
            self.namespaces[name].ip(BRIDGE.format(address=HOST_ADDRESSES[name], tap=TAP))
        a.ip(f"link add uplink type veth peer name uplink netns {b.pid}\nlink set uplink master br0 up\n")
        b.ip(f"link add peer type veth peer name eth0 netns {peer.pid}\nlink set uplink master br0 up\n"
             "link set peer master br0 up\n")
        # Its table of neighbours is given, so that nothing it does itself finds the guest again after a move.
        peer.ip(f"address add {PEER_ADDRESS}/24 dev eth0\nlink set eth0 up\n"
                f"neighbour add {GUEST_ADDRESS} lladdr {GUEST_MAC} dev eth0 nud permanent\n")
