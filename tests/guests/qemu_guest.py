"""A guest on QEMU's own virtio device (qemu_virtio.sh): its serial port and QEMU's control socket."""

import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEADLINE = 30  # seconds; only a failure reaches it
SKIP = 77


def skip_without_qemu():
    if not shutil.which("qemu-system-x86_64"):
        print("skipped: qemu-system-x86_64 is not installed")
        sys.exit(SKIP)


class QemuGuest:
    def __init__(self, kind, image, command_line, properties=""):
        self.scratch = Path(tempfile.mkdtemp(prefix="godwit-"))
        self.lines = queue.SimpleQueue()
        self.control = None
        self.prepare()
        self.process = subprocess.Popen([HERE / "qemu_virtio.sh", kind, image, command_line, self.scratch, properties],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        start_new_session=True)
        threading.Thread(target=self._read_lines, daemon=True).start()

    def prepare(self):
        """Before QEMU starts."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # the script and QEMU
        except ProcessLookupError:
            pass  # both have ended
        self.process.wait()
        shutil.rmtree(self.scratch)

    def _read_lines(self):
        for line in self.process.stdout:
            print(line, end="", flush=True)
            self.lines.put(line)
        self.lines.put("")

    def expect(self, verb):
        """The next line `<guest> <verb> k=v ..`, as a dictionary. A FAIL that is not wanted is a failure."""
        while line := self.lines.get(timeout=DEADLINE):
            words = line.split()
            if len(words) > 1 and words[1] == verb:
                return dict(word.split("=", 1) for word in words[2:])
            assert "FAIL" not in words, line
        raise AssertionError(f"no line with {verb}; exit status {self.process.wait()}")

    def send_line(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def ask(self, command, verb=None):
        self.send_line(command)
        return self.expect(verb or command)

    def qmp(self, command, **arguments):
        if self.control is None:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(self.scratch / "qmp"))
            self.control = connection.makefile("rw")
            self.control.readline()  # the greeting
            self.qmp("qmp_capabilities")
        self.control.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.control.flush()
        while "return" not in (reply := json.loads(self.control.readline())):
            assert "error" not in reply, reply
