"""Takes the connections of a listening socket, on a thread that ends before the socket does. A thread left in
accept(2) would come back to it after a stop of the process, by descriptor number: into the next test's socket."""

import socket
import threading


class Acceptor:
    def __init__(self, server, take):
        self.server = server
        self.take = take
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            self.take(connection)

    def close(self):
        self.server.shutdown(socket.SHUT_RDWR)  # ends accept(2)
        self.thread.join()
        self.server.close()
