"""What is seen of a copy of the guest from outside: its heartbeats and its answers, on its serial port."""

import socket
import threading
import time

BEAT = b"\x07"


class Copy(threading.Thread):
    """Connects to a serial port whenever it is there, and notes when each heartbeat came."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path = str(path)
        self.beats = []
        self.text = b""
        self.changed = threading.Condition()
        self.over = False
        self.socket = None
        self.start()

    def run(self):
        while not self.over:
            candidate = socket.socket(socket.AF_UNIX)
            try:
                candidate.connect(self.path)
            except OSError:
                candidate.close()
                time.sleep(0.01)
                continue
            self.socket = candidate
            self._read()
            self.socket = None
            candidate.close()

    def _read(self):
        while not self.over:
            try:
                data = self.socket.recv(65536)
            except OSError:
                return
            if not data:
                return
            with self.changed:
                self.beats += [time.monotonic()] * data.count(BEAT)
                self.text += data.replace(BEAT, b"")
                self.changed.notify_all()

    def beats_since(self, when):
        with self.changed:
            return sum(1 for beat in self.beats if beat >= when)

    def beats_now(self, seconds):
        """Whether it beats, looked at for so long at most."""
        before = time.monotonic()
        with self.changed:
            return self.changed.wait_for(lambda: bool(self.beats) and self.beats[-1] > before, seconds)

    def first_beat(self):
        with self.changed:
            return self.beats[0] if self.beats else None

    def self_check(self, seconds):
        """The guest's own verdict, "" if it says nothing."""
        with self.changed:
            begin = len(self.text)
        try:
            self.socket.sendall(b"check\n")
        except (OSError, AttributeError):
            return ""

        def verdict():
            for line in self.text[begin:].split(b"\n")[:-1]:
                if b" check " in line:
                    return line.decode(errors="replace").strip()
            return ""

        with self.changed:
            self.changed.wait_for(verdict, seconds)
            return verdict()

    def end(self):
        self.over = True
        if self.socket is not None:
            try:
                self.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.join()
