"""Where the tasks of a long computation run: one after the other, side by side in processes, or on a Dask cluster."""

from saliency_lib.runtime.executors.base import Executor, Serial
from saliency_lib.runtime.executors.cluster import TRIES, Dask, TasksFailed, described
from saliency_lib.runtime.executors.processes import Processes

EXECUTORS = {"serial": Serial, "processes": Processes, "dask": lambda: Dask("dask")}


def get(name: str) -> Executor:
    """The executor of a name, or the Dask cluster behind a scheduler's address.

    Parameters
    ----------
    name : str
        ``"serial"``; ``"processes"``, one per thread of PyTorch; ``"dask"``, a Dask cluster on this machine; or the
        address of a Dask scheduler, ``"tcp://host:8786"``.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    if name in EXECUTORS:
        return EXECUTORS[name]()
    if "://" in name:
        return Dask(name)
    raise ValueError(
        f"unknown executor {name!r}; one of {sorted(EXECUTORS)}, or a Dask scheduler's address such as tcp://host:8786"
    )


__all__ = ["EXECUTORS", "TRIES", "Dask", "Executor", "Processes", "Serial", "TasksFailed", "described", "get"]
