"""The outside observer of a guest (observer.cpp), and the guest's serial port, which it sits on."""

import queue
import subprocess
import threading

DEADLINE = 120  # seconds


class Observer:
    def __init__(self, binary, sockets):
        self.process = subprocess.Popen([binary, *map(str, sockets)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.split())
        self.lines.put(None)

    def send(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def expect(self, *verbs):
        """The fields of the next line with one of these words in the first two."""
        return dict(word.split("=", 1) for word in self._line(verbs) if "=" in word)

    def _line(self, verbs):
        while True:
            words = self.lines.get(timeout=DEADLINE)
            if words is None:
                raise RuntimeError("the observer has ended")
            if len(words) > 1 and words[1] in ("FAIL", "error"):
                raise RuntimeError(f"the guest says: {' '.join(words)}")
            if set(words[:2]) & set(verbs):
                return words

    def begin_connect(self, host):
        self.send(f"connect {host}")

    def end_connect(self, host):
        while self._line(["!connected"]) != ["!connected", str(host)]:
            pass

    def ask(self, host, command, verb=None):
        self.send(f"to {host} {command}")
        return self.expect(verb or command.split()[0])

    def beats(self):
        """[(host, time.monotonic())] of the beats since the last window."""
        self.send("beats")
        pairs = [word.split(":") for word in self._line(["!beats"])[1:]]
        return [(int(host), int(us) / 1e6) for host, us in pairs]

    def resolution(self):
        """us that its own threads take to wake: {median_us, p95_us}."""
        self.send("resolution")
        return {key: float(value) for key, value in self.expect("!resolution").items()}

    def window(self):
        """The gaps between beats since the last call, in ms."""
        self.send("window")
        fields = self.expect("!window")
        return {key.removesuffix("_us") + "_ms": float(value) / 1000 for key, value in fields.items() if key != "beats"} \
            | {"beats": int(fields["beats"])}

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
