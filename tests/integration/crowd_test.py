#!/usr/bin/python3
"""Connections that say nothing, or a byte now and then: a guest that arrives gets past them, they cost the listener
nothing that grows, and they are dropped."""

import os
import signal
import socket
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from integration import harness  # noqa: E402
from integration.handover_test import Move  # noqa: E402
from integration.harness import check  # noqa: E402
from integration.tls_test import TlsBed  # noqa: E402

CROWD = 64
MAX_GROWTH = 2 << 20  # bytes: 16 connections of a few KiB each, and room for an allocator
TLS_GROWTH = CROWD * (64 << 10)  # more with TLS: under a sanitizer, which keeps what was freed, of all that have come
PREAMBLE = 32  # bytes that name the session before TLS begins
RECORD_HEADER = 5  # of TLS; its last two bytes are the length
SILENT = (b"", b"")
TRICKLING = (b"", b"GWM1\x01\x00\x00\x00" + bytes(24))  # the head of a greeting


class Crowd:
    """Connections to `address`. Each of `kinds`, in turn: what is said at once, and then a byte now and then."""

    def __init__(self, address, kinds):
        self.kinds = kinds
        self.members = []
        host, port = address.removeprefix("tcp:").rsplit(":", 1)
        for index in range(CROWD):
            member = socket.create_connection((host, int(port)))
            member.sendall(kinds[index % len(kinds)][0])
            self.members.append(member)
        self.over = threading.Event()
        self.trickle = threading.Thread(target=self._trickle, daemon=True)
        self.trickle.start()

    def _trickle(self):
        for at in range(max(len(later) for _, later in self.kinds)):
            for index, member in enumerate(self.members):
                later = self.kinds[index % len(self.kinds)][1]
                try:
                    member.send(later[at:at + 1], socket.MSG_DONTWAIT)
                except OSError:
                    pass  # dropped
            if self.over.wait(0.3):
                return

    def wait_dropped(self):
        """Until the other side has closed every one of them."""
        for member in self.members:
            harness.wait_closed(member)

    def close(self):
        self.over.set()
        self.trickle.join()
        for member in self.members:
            member.close()


def memory_of(process):
    """Without the pages of its program, of which more are there with all that it does."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(text.split("RssAnon:")[1].split()[0]) << 10


def greeting_waits(address):
    """Whether a connection to `address` that nobody has accepted yet has brought bytes."""
    port = int(address.rsplit(":", 1)[1])
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        local, state, queues, inode = words[1], words[3], words[4], words[9]
        if int(local.split(":")[1], 16) == port and state == "01" and inode == "0" and int(queues.split(":")[1], 16):
            return True
    return False


def ready_guest(bed):
    guest = bed.a.run("hello.elf", append="wait=1")
    guest.serial.expect("ready")
    return guest


def guest_gets_past(bed, kinds, max_growth, receive=(), migrate=()):
    """A crowd is there when the guest comes, and is dropped afterwards."""
    listener = bed.b.receive(*receive)
    before = memory_of(listener)
    crowd = Crowd(listener.address, kinds)
    bed.a.migrate(listener.address, "--verify", "full", *migrate)
    bed.b.serial().ask("status")
    grown = memory_of(listener) - before
    crowd.wait_dropped()
    listener.wait_line("said nothing in time")
    check(grown < max_growth, f"the listener has grown by {grown} bytes")
    crowd.close()


def guest_gets_past_a_crowd(options):
    """64 connections that say nothing, or a byte now and then."""
    with harness.Bed(options) as bed:
        ready_guest(bed)
        guest_gets_past(bed, (TRICKLING, SILENT), MAX_GROWTH)


def opening_over_tls(bed):
    """The first words of a source with --tls-dir, before it is answered: the preamble, and the ClientHello."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        asking = bed.a.vmm("preflight", "guest", f"tcp:127.0.0.1:{server.getsockname()[1]}", *bed.tls("a"))
        with server.accept()[0] as connection:
            connection.settimeout(harness.DEADLINE)
            head = connection.recv(PREAMBLE + RECORD_HEADER, socket.MSG_WAITALL)
            opening = head + connection.recv(int.from_bytes(head[-2:], "big"), socket.MSG_WAITALL)
        check(asking.wait() != 0, asking.log())
    return opening


def guest_gets_past_a_crowd_over_tls(options):
    """Some of the 64 have begun a handshake, and stop in the middle of their first words or go on by the byte."""
    with TlsBed(options) as bed:
        ready_guest(bed)
        opening = opening_over_tls(bed)
        half = PREAMBLE + (len(opening) - PREAMBLE) // 2
        kinds = (SILENT, TRICKLING, (opening[:half], b""), (opening[:half], opening[half:half + 24]))
        guest_gets_past(bed, kinds, MAX_GROWTH + TLS_GROWTH, bed.tls("b"), bed.tls("a"))


def crowd_comes_between(options):
    """Whoever has said Hello is served, though 64 others came between that and the listener's next look."""
    with harness.Bed(options) as bed:
        listener = bed.b.receive()
        ready_guest(bed)
        os.kill(listener.pid, signal.SIGSTOP)
        move = Move(bed.a, listener.address)
        harness.wait_for(lambda: greeting_waits(listener.address))
        crowd = Crowd(listener.address, (TRICKLING, SILENT))
        os.kill(listener.pid, signal.SIGCONT)
        check(move.result() == 0, move.done.stdout + move.done.stderr)
        crowd.wait_dropped()
        crowd.close()


TESTS = {name: globals()[name] for name in ("guest_gets_past_a_crowd", "guest_gets_past_a_crowd_over_tls",
                                            "crowd_comes_between")}

if __name__ == "__main__":
    harness.main(TESTS)
