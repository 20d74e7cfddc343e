#!/usr/bin/python3
"""The outside peer of netecho.elf: net_peer.py GUEST_ADDRESS INTERVAL_MS.

Sends numbered datagrams to the guest's echo port at a steady rate, sends the guest's heartbeats (port 7001) back, and
measures. Commands on standard input, each answered by a line of JSON:

    start, stop     the stream of datagrams
    sync            waits until one that was sent after the command is answered
    once            sends one datagram, with the stream stopped, and waits for its answer
    report          counts, and the longest time between two answers, since the last report
"""

import json
import os
import select
import socket
import struct
import sys
import time

DEADLINE = float(os.environ.get("GODWIT_DEADLINE", "60"))  # seconds
ECHO_PORT, BEAT_PORT = 7, 7001
NUMBER = struct.Struct(">Q")


class Counts:
    """Of one report. What was sent last may be on its way still: it is counted in the next."""

    def __init__(self):
        self.sent = self.answered = self.repeated = self.late = self.beats = 0
        self.longest_gap = 0.0


class Peer:
    def __init__(self, guest, interval):
        self.guest = (guest, ECHO_PORT)
        self.interval = interval
        self.echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.beats = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.beats.bind(("", BEAT_PORT))
        for link in (self.echo, self.beats):
            link.setblocking(False)
        self.counts = Counts()
        self.number = 0  # of the datagram that was sent last
        self.newest = 0  # of those answered
        self.missing = set()  # older than the newest
        self.streaming = False
        self.next_send = 0.0
        self.last_answer = None

    def send(self):
        self.number += 1
        self.counts.sent += 1
        try:
            self.echo.sendto(NUMBER.pack(self.number), self.guest)
        except BlockingIOError:
            pass  # lost, as anywhere on the way

    def take_answer(self):
        number = NUMBER.unpack(self.echo.recv(2048))[0]
        now = time.monotonic()
        if self.last_answer is not None and self.streaming:
            self.counts.longest_gap = max(self.counts.longest_gap, now - self.last_answer)
        self.last_answer = now
        if number > self.newest:
            self.missing.update(range(self.newest + 1, number))
            self.newest = number
        elif number in self.missing:
            self.missing.discard(number)
            self.counts.late += 1
        else:
            self.counts.repeated += 1
            return
        self.counts.answered += 1

    def take_beat(self):
        data, sender = self.beats.recvfrom(2048)
        self.counts.beats += 1
        self.beats.sendto(data, sender)

    def turn(self, others=()):
        """Waits for the next thing to do and does it; what of `others` is readable."""
        now = time.monotonic()
        if self.streaming and now >= self.next_send:
            self.send()
            self.next_send = max(self.next_send + self.interval, now)
        wait = max(0.0, self.next_send - now) if self.streaming else 1.0
        readable, _, _ = select.select([self.echo, self.beats, *others], [], [], wait)
        if self.echo in readable:
            self.take_answer()
        if self.beats in readable:
            self.take_beat()
        return [other for other in readable if other not in (self.echo, self.beats)]

    def answered_beyond(self, number):
        end = time.monotonic() + DEADLINE
        while self.newest <= number and time.monotonic() < end:
            self.turn()
        return {"answered": self.newest > number}

    def obey(self, command):
        if command in ("start", "stop"):
            self.streaming = command == "start"
            self.next_send = time.monotonic()
            self.last_answer = None
            return {}
        if command == "sync":
            return self.answered_beyond(self.number)
        if command == "once":
            self.send()
            return self.answered_beyond(self.number - 1)
        if command == "report":
            counts, self.counts = self.counts, Counts()
            lost = len(self.missing)
            self.missing.clear()
            return {"sent": counts.sent, "answered": counts.answered, "lost": lost,
                    "lost_ms": lost * self.interval * 1000, "late": counts.late, "repeated": counts.repeated,
                    "longest_gap_ms": counts.longest_gap * 1000, "beats": counts.beats}
        sys.exit(f"net_peer: no such command: {command}")

    def serve(self):
        commands = b""
        while True:
            if self.turn([sys.stdin.fileno()]):
                data = os.read(sys.stdin.fileno(), 4096)
                if not data:
                    return
                commands += data
            while b"\n" in commands:
                line, commands = commands.split(b"\n", 1)
                print(json.dumps(self.obey(line.decode())), flush=True)


if __name__ == "__main__":
    Peer(sys.argv[1], float(sys.argv[2]) / 1000).serve()
