"""Something that is done again and again on a thread of its own, while something else goes on."""

import threading


class Periodic:
    """While it is open, calls `look()`, at once and then every `period` seconds, until that returns False."""

    def __init__(self, period):
        self.period = period
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        while self.look() and not self.over.wait(self.period):
            pass

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
