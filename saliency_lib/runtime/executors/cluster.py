"""Tasks on a Dask cluster: processes of this machine, or workers anywhere behind a scheduler's address."""

import atexit
import logging
import os
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from functools import lru_cache

import torch

from saliency_lib.runtime.executors.base import Executor, as_here, settings
from saliency_lib.runtime.executors.processes import without_interrupts

TRIES = 3
CONNECT_SECONDS, WORKER_SECONDS = 10, 300  # how long a scheduler may take to answer, and to have a first worker

_one_at_a_time = threading.Lock()


class TasksFailed(RuntimeError):
    """Some tasks failed at every try, the others are done; ``failures`` are pairs (item, exception)."""

    def __init__(self, failures: list):
        self.failures = failures
        what = f"{len(failures)} task{'s' * (len(failures) > 1)} failed {TRIES} times"
        super().__init__(f"{what}; the first with {described(failures[0][1])}")

    def __reduce__(self):
        return TasksFailed, (self.failures,)


def described(error: BaseException) -> str:
    """An exception's kind and message; a worker that dies of its task is called so."""
    if _killed(error):
        return "the worker that ran it died each time, for lack of memory perhaps"
    return f"{type(error).__name__}: {error}"


def _killed(error: BaseException | None) -> bool:
    return type(error).__name__ == "KilledWorker"  # of distributed, which may not be there


def _local():
    """A cluster of one process per thread of PyTorch on this machine, reachable from nowhere else."""
    import dask
    from distributed import LocalCluster

    dask.config.set({"distributed.scheduler.allowed-failures": TRIES - 1})
    with without_interrupts():
        return LocalCluster(
            n_workers=torch.get_num_threads(),
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
            silence_logs=logging.CRITICAL,
            resources={"GPU": 1} if torch.cuda.is_available() else None,  # which the processes then share
        )


@lru_cache(maxsize=4)
def _connected(address: str):
    from distributed import Client

    where = _local() if address == "dask" else address
    try:
        client = Client(where, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError) as error:
        raise ConnectionError(
            f"no Dask scheduler answers at {address}; start one with 'dask scheduler', or use executor='serial'"
        ) from error
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what is lost is said once, by us
    atexit.register(_leave, client)
    return client


def _leave(client) -> None:
    """Close a client and the cluster that was started for it."""
    cluster = client.cluster
    client.close(timeout=2)
    if cluster is not None:
        cluster.close(timeout=5)


def client(address: str):
    """A connected ``distributed.Client``, kept for later calls; ``"dask"`` starts a cluster on this machine.

    Raises
    ------
    ModuleNotFoundError
        Where Dask is not installed.
    ConnectionError
        Where no scheduler answers at the address.
    """
    try:
        import distributed  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"executor {address!r} needs Dask, which is not installed; install it with "
            "'pip install \".[cluster]\"' in the checkout, or use executor='serial'"
        ) from error
    found = _connected(address)
    if found.status != "running":  # its scheduler went away since
        _connected.cache_clear()
        found = _connected(address)
    return found


def _demand(client, device: str) -> dict | None:
    """What a worker must offer for tasks on ``device``; ValueError if workers are there but none offers it."""
    try:
        client.wait_for_workers(1, timeout=WORKER_SECONDS)
    except TimeoutError as error:
        raise ConnectionError(
            f"the Dask scheduler {client.scheduler.address} had no worker within {WORKER_SECONDS} s; "
            "start some with 'dask worker ADDRESS --nthreads 1'"
        ) from error
    if not device.startswith("cuda"):
        return None
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if not any(worker.get("resources", {}).get("GPU") for worker in workers):
        raise ValueError(
            f"the tasks compute on {device!r}, but no Dask worker offers a GPU; "
            "start one per GPU with 'dask worker ADDRESS --nthreads 1 --resources GPU=1'"
        )
    return {"GPU": 1}


def _alone(task, item, here: dict[str, str], folder: str):
    """A task on a worker: no other beside it in the same process, and one thread, as in ``processes``."""
    with _one_at_a_time:
        torch.set_num_threads(1)
        return as_here(task, item, here, folder)


def _same(value):
    return value


def _show(client, futures: list) -> None:
    """Dask's progress bars and the link to its dashboard, in a notebook that somebody watches."""
    from distributed.diagnostics.progressbar import progress
    from distributed.utils import is_kernel

    if is_kernel() and not os.environ.get("SALIENCY_QUIET"):
        from IPython.display import HTML, display

        display(HTML(f'Dask dashboard: <a href="{client.dashboard_link}">{client.dashboard_link}</a>'))
        display(progress(futures, notebook=True))


class _Submitted:
    """Tasks of one call that are on their way."""

    def __init__(self, client, task, device: str):
        self.client, self.demand = client, _demand(client, device)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
            self.task = self._submit(_same, task)  # travels once, not with every item
        self.here = settings(), os.getcwd()

    def leaf(self, item):
        """The future of the task of an item."""
        return self._submit(_alone, self.task, item, *self.here)

    def tree(self, branches, merge: Callable, finish: Callable):
        """The future of ``finish`` of all branches, merged in pairs; no other is held, so that workers forget maps."""
        merged = []
        for branch in branches:
            level = [self.leaf(item) for item in branch]
            while len(level) > 1:
                pairs = [self._submit(merge, *level[k : k + 2]) for k in range(0, len(level) - 1, 2)]
                level = pairs + level[2 * len(pairs) :]
            merged += level
        return self._submit(finish, merged)

    def _submit(self, function, *arguments):
        return self.client.submit(function, *arguments, pure=False, retries=TRIES - 1, resources=self.demand)

    def results(self, items: Sequence) -> Iterator[tuple]:
        """Triples (item, result, exception or None) as they get ready; what has not begun can be left.

        A worker that dies counts against all tasks that it was to run; those that were counted out are begun anew.
        """
        from distributed import as_completed

        futures, deaths = {self.leaf(item): k for k, item in enumerate(items)}, Counter()
        _show(self.client, list(futures))
        ready = as_completed(list(futures), loop=self.client.loop)
        try:
            for future in ready:
                k = futures.pop(future)  # no longer held here, so that a worker can forget it
                result, error = self.of(future)
                if _killed(error) and deaths[k] < TRIES - 1:
                    deaths[k] += 1
                    again = self.leaf(items[k])
                    futures[again] = k
                    ready.add(again)
                else:
                    yield items[k], result, error
        finally:
            if self.client.status == "running":
                self.client.cancel(list(futures))

    def of(self, future) -> tuple:
        """The result of a future and its exception or None; ConnectionError if the scheduler went away."""
        result, lost = None, None
        try:
            error = future.exception()
            result = None if error else future.result()
        except (CancelledError, OSError) as gone:  # a task's own exception is given, not raised
            lost = gone
        if lost or isinstance(error, CancelledError):
            raise ConnectionError(
                f"the Dask scheduler at {self.client.scheduler.address} is gone; what is done is kept, so start it and "
                "call again, or use executor='serial'"
            ) from (lost or error)
        return result, error


class Dask(Executor):
    """Tasks on a Dask cluster, ``"dask"`` for one on this machine or a scheduler's address.

    A task whose worker dies goes to another, also one that was done but whose result had not been fetched yet: so it
    should find what it has done. One that raises is tried three times; the others are finished before
    :class:`TasksFailed` tells of it. Tasks on a GPU go to workers that offer the resource ``GPU``.
    """

    def __init__(self, address: str):
        self.address = address

    def map(self, task, items, device="cpu"):
        """See :meth:`Executor.map`."""
        submitted, failures = _Submitted(client(self.address), task, device), []
        for item, result, error in submitted.results(items):
            if error:
                failures.append((item, error))
            else:
                yield item, result
        if failures:
            raise TasksFailed(failures)

    def reduce(self, task, branches, merge, finish, device="cpu"):
        """See :meth:`Executor.reduce`; results are merged in pairs where they are, and only ``finish``'s comes back."""
        submitted = _Submitted(client(self.address), task, device)
        root = submitted.tree(branches, merge, finish)
        _show(submitted.client, [root])
        result, error = submitted.of(root)
        if error:
            raise TasksFailed([(None, error)])
        return result
