#!/usr/bin/python3
"""Connections that say nothing, or a byte now and then: a guest that arrives gets past them, they cost the listener
nothing that grows, and they are dropped."""

import os
import select
import signal
import socket
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from integration import harness  # noqa: E402
from integration.handover_test import Move  # noqa: E402
from integration.harness import check  # noqa: E402

CROWD = 64
MAX_GROWTH = 2 << 20  # bytes: 16 connections of a few KiB each, and room for an allocator


class Crowd:
    """Connections to `address`; every second one sends a byte of a greeting now and then."""

    def __init__(self, address, count):
        host, port = address.removeprefix("tcp:").rsplit(":", 1)
        self.members = []
        for _ in range(count):
            member = socket.create_connection((host, int(port)))
            member.setblocking(False)
            self.members.append(member)
        self.over = threading.Event()
        self.trickle = threading.Thread(target=self._trickle, daemon=True)
        self.trickle.start()

    def _trickle(self):
        greeting = b"GWM1\x01\x00\x00\x00" + bytes(24)
        for byte in greeting:
            for member in self.members[::2]:
                try:
                    member.send(bytes([byte]))
                except OSError:
                    pass  # dropped
            if self.over.wait(0.3):
                return

    def wait_dropped(self):
        """Until the other side has closed every one of them."""
        for member in self.members:
            check(select.select([member], [], [], harness.DEADLINE)[0], "a connection that says nothing is kept")
            try:
                check(member.recv(1) == b"", "somebody answers a connection that said nothing")
            except ConnectionResetError:
                pass

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


def guest_gets_past_a_crowd(options):
    """64 connections are open when the guest comes, and they are dropped afterwards."""
    with harness.Bed(options) as bed:
        listener = bed.b.receive()
        ready_guest(bed)
        before = memory_of(listener)
        crowd = Crowd(listener.address, CROWD)
        bed.a.migrate(listener.address, "--verify", "full")
        bed.b.serial().ask("status")
        grown = memory_of(listener) - before
        crowd.wait_dropped()
        check(grown < MAX_GROWTH, f"the listener has grown by {grown} bytes")
        crowd.close()


def crowd_comes_between(options):
    """Whoever has said Hello is served, though 64 others came between that and the listener's next look."""
    with harness.Bed(options) as bed:
        listener = bed.b.receive()
        ready_guest(bed)
        os.kill(listener.pid, signal.SIGSTOP)
        move = Move(bed.a, listener.address)
        harness.wait_for(lambda: greeting_waits(listener.address))
        crowd = Crowd(listener.address, CROWD)
        os.kill(listener.pid, signal.SIGCONT)
        check(move.result() == 0, move.done.stdout + move.done.stderr)
        crowd.wait_dropped()
        crowd.close()


TESTS = {name: globals()[name] for name in ("guest_gets_past_a_crowd", "crowd_comes_between")}

if __name__ == "__main__":
    harness.main(TESTS)
