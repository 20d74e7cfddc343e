"""A TCP proxy in front of `vmm receive`, to cut the link without touching either process."""

import socket
import threading


class Proxy:
    def __init__(self, target):
        host, port = target.removeprefix("tcp:").rsplit(":", 1)
        self.target = (host, int(port))
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp:127.0.0.1:{self.server.getsockname()[1]}"
        self.changed = threading.Condition()
        self.pairs = []
        self.down = False  # ends new connections too, while it is set
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.server.accept()
            except OSError:
                return
            try:
                if self.down:
                    raise ConnectionRefusedError
                far = socket.create_connection(self.target)
            except OSError:
                near.close()
                continue
            with self.changed:
                self.pairs.append((near, far))
                self.changed.notify_all()
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    @staticmethod
    def _pump(one, other):
        try:
            while data := one.recv(1 << 16):
                other.sendall(data)
        except OSError:
            pass
        Proxy._end((one, other))

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
        self.server.close()
