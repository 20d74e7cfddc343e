"""A TCP proxy in front of `vmm receive`, to cut the link without touching either process."""

import socket
import threading

from integration.acceptor import Acceptor


class Proxy:
    def __init__(self, target):
        host, port = target.removeprefix("tcp:").rsplit(":", 1)
        self.target = (host, int(port))
        server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp:127.0.0.1:{server.getsockname()[1]}"
        self.changed = threading.Condition()
        self.pairs = []
        self.down = False  # ends new connections too, while it is set
        self.kept = None  # what went to the target, and whither, while it is kept from it
        self.acceptor = Acceptor(server, self._take)

    def _take(self, near):
        try:
            if self.down:
                raise ConnectionRefusedError
            far = socket.create_connection(self.target)
        except OSError:
            near.close()
            return
        with self.changed:
            self.pairs.append((near, far))
            self.changed.notify_all()
        for one, other in ((near, far), (far, near)):
            threading.Thread(target=self._pump, args=(one, other, other is far), daemon=True).start()

    def _pump(self, one, other, to_target):
        try:
            while data := one.recv(1 << 16):
                if not (to_target and self._keep(other, data)):
                    other.sendall(data)
        except OSError:
            pass
        # What is kept can still be delivered.
        self._end((one,) if to_target and self.kept is not None else (one, other))

    def _keep(self, far, data):
        with self.changed:
            if self.kept is not None:
                self.kept.append((far, data))
                self.changed.notify_all()
            return self.kept is not None

    def keep(self):
        """From now on nothing reaches the target."""
        self.kept = []

    def wait_kept(self):
        with self.changed:
            if not self.changed.wait_for(lambda: self.kept, 60):
                raise TimeoutError("nothing came that could be kept")

    def cut_near(self):
        """Whoever connected sees every connection end, and gets no new one; the target sees nothing."""
        self.down = True
        with self.changed:
            self._end([near for near, _ in self.pairs])

    def deliver(self):
        """The target gets late what was kept from it."""
        with self.changed:
            kept, self.kept = self.kept, None
        for far, data in kept:
            far.sendall(data)

    def wait_connected(self, count=1):
        """Returns once so many connections go through."""
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.pairs) >= count, 60):
                raise TimeoutError(f"{len(self.pairs)} connections to the proxy, not {count}")

    def cut(self):
        """Ends every connection; new ones work."""
        with self.changed:
            pairs, self.pairs = self.pairs, []
        for pair in pairs:
            self._end(pair)

    def cut_one(self, number):
        """Ends one connection, counted in the order they were made."""
        with self.changed:
            pair = self.pairs.pop(number)
        self._end(pair)

    @staticmethod
    def _end(pair):
        for end in pair:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.cut()
        self.acceptor.close()
