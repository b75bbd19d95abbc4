"""One place where work runs: here, in processes of this machine, or on a Dask cluster, all by the same loop.

An executor is a name: ``"serial"``; ``"processes"``, one for each core, or serial where there is one core and on a GPU,
unless ``SALIENCY_PROCESSES`` says how many share it; ``"dask"``, a cluster on this machine; or the address of a Dask
scheduler, ``"tcp://host:8786"``. A worker uses one thread, and sees the caller's ``SALIENCY_`` settings and, where it
exists, working folder. A task may be any function, also one that a notebook defines; a script that uses ``"dask"``
needs its ``if __name__ == "__main__":``.
"""

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from contextlib import suppress
from typing import Any

from saliency_lib.runtime import deadline, workers
from saliency_lib.runtime.progress import progress
from saliency_lib.runtime.store import Entry

EXECUTORS = ("dask", "processes", "serial")
TRIES = 3


def check(executor: str) -> None:
    """Raise ValueError for an executor that is neither a known name nor an address."""
    if executor not in EXECUTORS and "://" not in executor:
        known = f"one of {list(EXECUTORS)}, or a Dask scheduler's address such as tcp://host:8786"
        raise ValueError(f"unknown executor {executor!r}; {known}")


class TasksFailed(RuntimeError):
    """Some tasks failed at every try, the others are done; ``failures`` are pairs (item, exception)."""

    def __init__(self, failures: list[tuple[Any, BaseException]]):
        self.failures = failures
        what = f"{len(failures)} task{'s' * (len(failures) > 1)} failed {TRIES} times"
        super().__init__(f"{what}; the first with {described(failures[0][1])}")

    def __reduce__(self):
        return TasksFailed, (self.failures,)


def described(error: BaseException) -> str:
    """An exception's kind and message; a worker that dies of its task is called so."""
    if _died(error):
        return "the worker that ran it died each time, for lack of memory perhaps"
    return f"{type(error).__name__}: {error}"


def _died(error: BaseException) -> bool:
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"  # of Dask, if that is there


def run(
    task: Callable[[Any], Any], items: Iterable, executor: str = "serial", device: str = "cpu"
) -> Generator[tuple[Any, Any], None, None]:
    """The pairs (item, ``task(item)``) as they get ready; an item is asked for only when a worker is free for it.

    Serially the first exception ends it. On workers a task that raises, or whose worker dies, is tried three times
    while the others go on. Of all that was under way when a process died nobody knows which killed it: that counts
    for none, and each is done again alone. An end before the last pair, as by Ctrl-C, ends the processes too; a Dask
    worker finishes its task.

    Parameters
    ----------
    device : str
        What the tasks compute on; those on a GPU go to Dask workers that offer the resource ``GPU``.

    Raises
    ------
    TasksFailed
        At the end, for tasks that failed at every try.
    ValueError
        For an unknown executor, and for a GPU that no Dask worker offers.
    ConnectionError, ModuleNotFoundError
        Where no scheduler answers, it goes away or has no worker; where Dask is not installed.
    """
    for _, item, result in _numbered(task, items, executor, device):
        yield item, result


def ordered(
    task: Callable[[Any], Any], items: Iterable, executor: str = "serial", device: str = "cpu"
) -> Iterator[Any]:
    """The results of :func:`run` in the order of the items, so that sums come out alike wherever they were computed."""
    early, due = {}, 0
    for k, _, result in _numbered(task, items, executor, device):
        early[k] = result
        while due in early:
            yield early.pop(due)
            due += 1


def kept(
    function: Callable[[Any], Any],
    items: Sequence,
    executor: str = "serial",
    device: str = "cpu",
    description: str = "",
) -> list:
    """``function`` of each item, in their order: from the store, or else by :func:`run`, and kept as they get ready.

    So a run that was stopped goes on; ``description`` stands at the progress bar.
    """
    entries, found = [Entry(function, item) for item in items], {}
    for k, entry in enumerate(entries):
        with suppress(LookupError):
            found[k] = entry.load()
    missing = [k for k in range(len(items)) if k not in found]
    with progress(total=len(missing), description=description) as bar:
        for place, _, result in _numbered(function, [items[k] for k in missing], executor, device):
            found[missing[place]] = entries[missing[place]].save(result)
            bar.update()
    return [found[k] for k in range(len(items))]


def _numbered(task, items, executor: str, device: str) -> Iterator[tuple[int, Any, Any]]:
    """Triples (number, item, result): the loop behind all of the above."""
    pool, running, again, suspects, failures = _pool(executor, device), {}, [], [], []
    fresh = ((k, item, 0) for k, item in enumerate(items))  # number, item, how often it failed
    try:
        while True:
            if suspects:
                starting = [] if running else [suspects.pop()]
            else:
                following = iter(lambda: again.pop() if again else next(fresh, None), None)
                starting = itertools.islice(following, max(0, pool.size() - len(running)))
            for attempt in starting:
                if deadline.passed():
                    raise deadline.OutOfTime
                running[pool.submit(task, attempt[1])] = attempt
            if not running:
                break
            alone = len(running) == 1
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                k, item, failed = running.pop(future)
                if (error := _error(future, executor)) is None:
                    yield k, item, future.result()
                elif isinstance(error, deadline.OutOfTime):
                    raise error
                elif _died(error) and not alone:  # which of several killed it will be seen
                    suspects.append((k, item, failed))
                elif failed + 1 == TRIES:
                    failures.append((item, error))
                else:
                    (suspects if _died(error) else again).append((k, item, failed + 1))
    finally:
        if running:
            pool.shutdown()
    if failures:
        raise TasksFailed(failures)


def _pool(executor: str, device: str) -> workers.Inline | workers.Processes | workers.Cluster:
    check(executor)
    if executor == "serial" or (executor == "processes" and workers.processes(device) == 1):
        return workers.Inline()
    return workers.Processes(device) if executor == "processes" else workers.Cluster(executor, device)


def _error(future: Future, executor: str) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:
        raise ConnectionError(
            f"the Dask scheduler at {executor} is gone; what is done is kept, so start it and call again, "
            "or use executor='serial'"
        ) from error
