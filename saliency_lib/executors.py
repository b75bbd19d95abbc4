"""Where the tasks of a long computation run: one after the other, or side by side in processes."""

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch


def _serial(task: Callable[[Any], Any], items: Sequence) -> Iterator[tuple[Any, Any]]:
    for item in items:
        yield item, task(item)


def _leave_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _begin() -> None:
    """What a new process does first."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    torch.set_num_threads(1)


@contextmanager
def _without_interrupts():
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
    with _without_interrupts():
        for _ in range(count):
            pool.submit(int)
    return pool, count


def _as_in_parent(task: Callable[[Any], Any], item: Any, settings: dict[str, str], folder: str) -> Any:
    for name in [name for name in os.environ if name.startswith("SALIENCY_")]:
        del os.environ[name]
    os.environ.update(settings | {"SALIENCY_QUIET": "1"})
    os.chdir(folder)
    return task(item)


def _processes(task: Callable[[Any], Any], items: Sequence) -> Iterator[tuple[Any, Any]]:
    settings = {name: value for name, value in os.environ.items() if name.startswith("SALIENCY_")}
    waiting, running = iter(items), {}
    try:
        pool, count = _pool()
        while True:
            # no more at a time than there are processes: what has not begun can then simply be left
            for item in itertools.islice(waiting, count - len(running)):
                running[pool.submit(_as_in_parent, task, item, settings, os.getcwd())] = item
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
            _pool.cache_clear()  # what still runs comes to its end and its processes leave; the next call has new ones
            pool.shutdown(wait=False)


EXECUTORS = {"serial": _serial, "processes": _processes}


def get(name: str) -> Callable[[Callable[[Any], Any], Sequence], Iterator[tuple[Any, Any]]]:
    """A function of (task, items) that gives the pairs (item, ``task(item)``) as they get ready, in any order.

    Parameters
    ----------
    name : str
        ``"serial"``, or ``"processes"``: as many as PyTorch used threads at the first call, with one thread each, which
        are kept for later calls. The task is sent to them, so it is a function of a module or a ``partial`` of one,
        and a script that calls this needs its ``if __name__ == "__main__":``. An exception in a task is raised where
        the pairs are taken; what runs at that moment, or at Ctrl-C, comes to its end, and no more is begun.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    if name not in EXECUTORS:
        raise ValueError(f"unknown executor {name!r}; one of {sorted(EXECUTORS)}")
    return EXECUTORS[name]
