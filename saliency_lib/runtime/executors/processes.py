"""Tasks side by side in processes of this machine."""

import itertools
import multiprocessing
import os
import signal
import threading
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache

import torch

from saliency_lib.runtime.executors.base import Executor, as_here, settings


def _leave_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _begin() -> None:
    """What a new process does first."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    torch.set_num_threads(1)


@contextmanager
def without_interrupts():
    """Ignore Ctrl-C inside the block; processes that are started there leave it to their parent for good."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


@lru_cache(maxsize=1)
def _pool() -> tuple[ProcessPoolExecutor, int]:
    """The processes, which stay for later calls, and how many they are."""
    spawn = multiprocessing.get_context("spawn")  # a fork would copy PyTorch's threads in the middle of their work
    count = torch.get_num_threads()
    pool = ProcessPoolExecutor(count, spawn, _begin)
    with without_interrupts():
        for _ in range(count):
            pool.submit(int)
    return pool, count


class Processes(Executor):
    """As many processes as PyTorch used threads at the first call, with one thread each, kept for later calls.

    An exception in a task is raised where the pairs are taken; what runs at that moment, or at Ctrl-C, comes to its
    end, and no more is begun. A script that calls this needs its ``if __name__ == "__main__":``.
    """

    def map(self, task, items, device="cpu"):
        """See :meth:`Executor.map`."""
        waiting, running, here = iter(items), {}, settings()
        try:
            pool, count = _pool()
            while True:
                # no more at a time than there are processes: what has not begun can then simply be left
                for item in itertools.islice(waiting, count - len(running)):
                    running[pool.submit(as_here, task, item, here, os.getcwd())] = item
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except BrokenProcessPool as error:
            _pool.cache_clear()
            raise RuntimeError(
                "a process died: for lack of memory, or since the script that began it has no "
                "'if __name__ == \"__main__\":'; what is done is kept, and executor='serial' needs neither"
            ) from error
        finally:
            if running:
                _pool.cache_clear()  # what still runs comes to its end, its processes leave; the next call has new ones
                pool.shutdown(wait=False)
