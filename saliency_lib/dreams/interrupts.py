"""Ctrl-C at a moment when nothing is half done."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def held() -> Iterator[Callable[[], None]]:
    """Gives a function that raises KeyboardInterrupt if Ctrl-C was pressed since; inside the block nothing else does.

    A second Ctrl-C is not held. Outside the main thread, where no signal arrives, nothing changes.
    """
    asked = []

    def note(number: int, frame) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    def stop_if_asked() -> None:
        if asked:
            asked.clear()
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield stop_if_asked
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield stop_if_asked
    finally:
        signal.signal(signal.SIGINT, before)
