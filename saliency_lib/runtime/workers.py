"""Where :mod:`saliency_lib.runtime.parallel` has tasks done: executors of ``concurrent.futures`` that know a size.

``submit(task, item)`` gives a future, ``size()`` is how many are worth having at once, ``shutdown()`` ends them.
"""

import logging
import os
import signal
import threading
import time
import warnings
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from joblib.externals.loky import get_reusable_executor

from saliency_lib.runtime.machine import cores

CONNECT_SECONDS, WORKER_SECONDS = 10, 300  # how long a scheduler may take to answer, and to have a first worker

_one_at_a_time = threading.Lock()
# loky replaces a process whose memory has grown, which is no news
warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)


class Inline(Executor):
    """The serial executor: a call is done when it is submitted, in this very thread, and raises there what it raises.

    It also serves those who do one thing at a time or several by the same ``submit`` and ``concurrent.futures.wait``:
    ``Inline() if jobs == 1 else ProcessPoolExecutor(jobs)``. Ctrl-C stops what runs at once.
    """

    def submit(self, function, /, *arguments, **options) -> Future:
        """A future that is done."""
        future = Future()
        future.set_result(function(*arguments, **options))
        return future

    def size(self) -> int:
        """One."""
        return 1


def _caller() -> tuple[dict[str, str], str]:
    """What a worker must find as it is here: the project's settings, and the working folder."""
    return {name: value for name, value in os.environ.items() if name.startswith("SALIENCY_")}, os.getcwd()


def _as_here(task, item, settings: dict[str, str], folder: str):
    """``task(item)`` on a worker: with one thread, no other task beside it, and what :func:`_caller` found."""
    with _one_at_a_time:
        torch.set_num_threads(1)
        for name in [name for name in os.environ if name.startswith("SALIENCY_")]:
            del os.environ[name]
        os.environ.update(settings | {"SALIENCY_QUIET": "1"})
        if os.path.isdir(folder):
            os.chdir(folder)
        return task(item)


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


def number_of(setting: str) -> int | None:
    """A number of threads or processes from the environment; None if it is not set, ValueError if it is none."""
    if not (value := os.environ.get(setting)):
        return None
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"{setting}={value!r} should be a whole number from 1; or leave it away")
    return int(value)


def processes(device: str = "cpu") -> int:
    """How many are worth having: ``$SALIENCY_PROCESSES``, else one for each core worth using, or one on a GPU."""
    return number_of("SALIENCY_PROCESSES") or (cores() if device == "cpu" else 1)


class Processes(Executor):
    """As many as :func:`processes` says, kept for later calls; they leave with this one, however it ends."""

    def __init__(self, device: str = "cpu"):
        self.device = device

    def _pool(self):
        return get_reusable_executor(self.size(), timeout=None, initializer=leave_with, initargs=(os.getpid(),))

    def size(self) -> int:
        """As many as there are processes: what has not begun can then simply be left."""
        return processes(self.device)

    def submit(self, task, /, *item, **_) -> Future:
        """Also of a notebook's function; where a process dies in this very moment, the future has failed of that."""
        try:
            with _without_interrupts():
                return self._pool().submit(_as_here, task, *item, *_caller())
        except BrokenExecutor as error:
            future = Future()
            future.set_exception(error)
            return future

    def shutdown(self, *_, **__) -> None:
        """Whatever they are at; the next call has new ones."""
        self._pool().shutdown(kill_workers=True)


def leave_with(parent: int) -> None:
    """In a process that works for another: end with it, however that ends, also by a signal that it cannot tell of."""

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Cluster(Executor):
    """The workers of a Dask scheduler, those with a GPU for tasks on one; ``"dask"`` starts some on this machine.

    Raises
    ------
    ModuleNotFoundError
        Where Dask is not installed.
    ConnectionError
        Where no scheduler answers at the address, or it has no worker.
    ValueError
        Where tasks compute on a GPU and no worker offers one.
    """

    def __init__(self, address: str, device: str):
        if (client := _client(address)).status != "running":  # its scheduler went away since
            _client.cache_clear()
            client = _client(address)
        try:
            client.wait_for_workers(1, timeout=WORKER_SECONDS)
        except TimeoutError as error:
            raise ConnectionError(
                f"the Dask scheduler {client.scheduler.address} had no worker within {WORKER_SECONDS} s; "
                "start some with 'dask worker ADDRESS --nthreads 1'"
            ) from error
        self.client, self.demand = client, {"GPU": 1} if device.startswith("cuda") else None
        if not self._workers():
            raise ValueError(
                f"the tasks compute on {device!r}, but no Dask worker offers a GPU; "
                "start one per GPU with 'dask worker ADDRESS --nthreads 1 --resources GPU=1'"
            )
        self.executor = client.get_executor(pure=False, resources=self.demand)
        self.task: Any = None  # the last one, and the future that it travels as
        self.sent: Any = None

    def _workers(self) -> int:
        found = self.client.scheduler_info(n_workers=-1)["workers"].values()
        return sum(1 for worker in found if not self.demand or worker.get("resources", {}).get("GPU"))

    def size(self) -> int:
        """As many as there are workers; one where all are just being replaced."""
        return max(1, self._workers())

    def submit(self, task, /, *item, **_) -> Future:
        """The task itself travels once, not with every item; again if a worker died while it received it."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
            if task is not self.task or self.sent.status == "error":
                self.task = task
                self.sent = self.client.submit(lambda same: same, task, pure=False, resources=self.demand)
            return self.executor.submit(_as_here, self.sent, *item, *_caller())

    def shutdown(self, *_, **__) -> None:
        """What has begun comes to its end."""
        if self.client.status == "running":
            self.executor.shutdown(wait=False)


@lru_cache(maxsize=4)
def _client(address: str):
    """A connected ``distributed.Client``, kept for later calls."""
    try:
        from dask import config
        from distributed import Client
        from distributed.utils import is_kernel
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"executor {address!r} needs Dask, which is not installed; install it with "
            "'pip install \".[cluster]\"' in the checkout, or use executor='serial'"
        ) from error
    try:
        if address == "dask":  # a busy machine takes long to start a worker anew
            config.set({"distributed.deploy.lost-worker-timeout": "1 day"})
        with _without_interrupts(), config.set({"distributed.scheduler.allowed-failures": 0}):  # the loop counts them
            client = Client(**_local()) if address == "dask" else Client(address, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError) as error:
        raise ConnectionError(
            f"no Dask scheduler answers at {address}; start one with 'dask scheduler', or use executor='serial'"
        ) from error
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what is lost is said once, by us
    if is_kernel() and not os.environ.get("SALIENCY_QUIET"):
        from IPython.display import HTML, display

        display(HTML(f'Dask dashboard: <a href="{client.dashboard_link}">{client.dashboard_link}</a>'))
    return client


def _local() -> dict:
    """A cluster of one process per core on this machine, reachable from nowhere else."""
    return {
        "n_workers": processes(),
        "threads_per_worker": 1,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "memory_limit": 0,
        "silence_logs": logging.CRITICAL,
        "resources": {"GPU": 1} if torch.cuda.is_available() else None,  # which the processes then share
    }
