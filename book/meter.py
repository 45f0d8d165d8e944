"""What the processes started meanwhile take: processor time and memory."""

import threading
from contextlib import suppress

import psutil

EVERY_S = 0.2


class Meter(threading.Thread):
    """Processor seconds and largest memory (GB) of the processes that are started within ``with Meter() as meter``.

    Processor time, since a busy machine does not change it much. Memory that processes share counts for each of them.
    """

    def __init__(self):
        super().__init__(daemon=True)
        self.seconds, self.gigabytes = 0.0, 0.0
        self._done, self._others = threading.Event(), self._children()

    def __enter__(self) -> "Meter":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        while not self._done.wait(EVERY_S):
            self._look()

    def _look(self) -> None:
        seconds = memory = 0.0
        for child in self._children() - self._others:
            with suppress(psutil.Error):  # it has just ended; its time goes to its parent
                seconds += sum(child.cpu_times()[:4])
                memory += child.memory_info().rss
        self.seconds, self.gigabytes = max(self.seconds, seconds), max(self.gigabytes, memory / 1e9)

    @staticmethod
    def _children() -> set[psutil.Process]:
        return set(psutil.Process().children(recursive=True))
