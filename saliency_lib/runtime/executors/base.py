"""What every executor can do; and the simplest of them, one task after the other."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any


class Executor(ABC):
    """Where the tasks of a long computation run. A task is a function of a module, or a ``partial`` of one."""

    @abstractmethod
    def map(self, task: Callable[[Any], Any], items: Sequence, device: str = "cpu") -> Iterator[tuple[Any, Any]]:
        """The pairs (item, ``task(item)``) as they get ready, in any order; ``device`` is what the tasks compute on."""

    def reduce(
        self,
        task: Callable[[Any], Any],
        branches: Sequence[Sequence],
        merge: Callable[[Any, Any], Any],
        finish: Callable[[list], Any],
        device: str = "cpu",
    ) -> Any:
        """``finish`` of a list that holds, for every branch of items, the merged results of their tasks.

        ``merge`` is associative and leaves its arguments as they are.
        """
        leaves = [(branch, k) for branch, items in enumerate(branches) for k in range(len(items))]
        merged: list = [None] * len(branches)
        pairs = self.map(partial(_leaf, task, branches), leaves, device)
        for (branch, k), result in in_order(pairs, leaves):
            merged[branch] = merge(merged[branch], result) if k else result
        return finish(merged)


def _leaf(task: Callable[[Any], Any], branches: Sequence[Sequence], place: tuple[int, int]) -> Any:
    branch, k = place
    return task(branches[branch][k])


def in_order(pairs: Iterator[tuple[Any, Any]], items: Sequence) -> Iterator[tuple[Any, Any]]:
    """The pairs in the order of ``items``, so that sums come out alike however they were computed."""
    early: dict = {}
    for item in items:
        while item not in early:
            early.update([next(pairs)])
        yield item, early.pop(item)


class Serial(Executor):
    """One task after the other, here; the first exception ends it."""

    def map(self, task, items, device="cpu"):
        """See :meth:`Executor.map`."""
        for item in items:
            yield item, task(item)


def settings() -> dict[str, str]:
    """The environment variables that a task elsewhere must find as they are here."""
    return {name: value for name, value in os.environ.items() if name.startswith("SALIENCY_")}


def as_here(task: Callable[[Any], Any], item: Any, settings: dict[str, str], folder: str) -> Any:
    """``task(item)`` in another process, with the settings and, where it exists, the working folder of the caller."""
    for name in [name for name in os.environ if name.startswith("SALIENCY_")]:
        del os.environ[name]
    os.environ.update(settings | {"SALIENCY_QUIET": "1"})
    if os.path.isdir(folder):
        os.chdir(folder)
    return task(item)
