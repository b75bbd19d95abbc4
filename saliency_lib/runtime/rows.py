"""A table on disk that grows a row at a time: what is there is not computed again, so that a stopped run goes on."""

import ast
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from saliency_lib.estimates import Estimate
from saliency_lib.runtime import executors
from saliency_lib.runtime.progress import progress
from saliency_lib.runtime.store import PROJECT, atomic, locked, rows_root


def _files(room: str) -> list[Path]:
    path = PROJECT / "saliency_lib" / room
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def imports(source: str) -> list[str]:
    """Files or folders of saliency_lib that Python code imports from, without their endings."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("saliency_lib"):
            found += node.module.split(".")[1:2] or [alias.name for alias in node.names]
    return found


def code(*rooms: str) -> str:
    """Fingerprint of files or folders of saliency_lib and of all that they import from it, for keys of rows."""
    state, waiting, seen = hashlib.sha256(), list(rooms), set()
    while waiting:
        room = waiting.pop()
        if room in seen:
            continue
        seen.add(room)
        for file in _files(room):
            waiting += imports(file.read_text())
    for room in sorted(seen):
        for file in _files(room):
            state.update(file.read_bytes())
    return state.hexdigest()[:12]


class Rows:
    """A tidy CSV file ``<rows>/<name>.csv``: columns of the key, then numbers; an estimate takes three.

    Attributes
    ----------
    computed, found : int
        Rows that were computed, and found on disk, through this object.
    """

    def __init__(self, name: str):
        self.path = rows_root() / f"{name}.csv"
        self.computed = self.found = 0

    def get(self, compute: Callable[[], dict], **key) -> dict:
        """The row of ``key``, from disk or else from ``compute()``: a dict of numbers and estimates.

        What decides the numbers belongs into the key: a change there computes the row again, under a key of its own.
        """
        if (found := self._find(key)) is not None:
            self.found += 1
            return found
        self._write(key, compute())
        return self._find(key)

    def collect(
        self, task: Callable[[Any], dict], cells: Sequence[tuple[dict, Any]], executor: str = "serial", device="cpu"
    ) -> list[dict]:
        """The rows of all cells (key, item), from disk or else from ``task(item)``, each written when it is ready.

        Parameters
        ----------
        executor, device : str
            Where the tasks run, as in :func:`saliency_lib.runtime.executors.get`, and what they compute on.
        """
        missing = [k for k, (key, _) in enumerate(cells) if self._find(key) is None]
        self.found += len(cells) - len(missing)
        items = [(k, cells[k][1]) for k in missing]
        with progress(total=len(items), description=f"rows of {self.path.stem}") as bar:
            for (k, _), values in executors.get(executor).map(partial(_numbered, task), items, device):
                self._write(cells[k][0], values)
                bar.update()
        return [self._find(key) for key, _ in cells]

    def _find(self, key: dict) -> dict | None:
        table, row = self._table(), _name(key)
        return _grouped(table.loc[row].drop(labels=list(key)).to_dict()) if row in table.index else None

    def _write(self, key: dict, values: dict) -> None:
        values, row = _flat(values), _name(key)
        if clash := sorted(set(values) & set(key)):
            raise ValueError(f"{', '.join(clash)} cannot be both in a row's key and among its numbers")
        self.computed += 1
        with locked(self.path.with_suffix(".lock")):
            text = {name: [str(value)] for name, value in (key | values).items()}
            new = pd.DataFrame(text, index=pd.Index([row], name="row"))
            known = self._table()
            with atomic(self.path) as temporary:
                pd.concat([known[known.index != row], new]).to_csv(temporary)

    def _table(self) -> pd.DataFrame:
        if not self.path.exists():
            return pd.DataFrame(index=pd.Index([], name="row"))
        return pd.read_csv(self.path, dtype=str, keep_default_na=False, index_col="row")


def _name(key: dict) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def _numbered(task: Callable[[Any], dict], item: tuple[int, Any]) -> dict:
    return task(item[1])


def _flat(values: dict) -> dict[str, float]:
    """Every estimate as three columns: ``snr``, ``snr.low``, ``snr.high``."""
    flat = {}
    for name, value in values.items():
        if isinstance(value, Estimate):
            flat |= {name: value.value, f"{name}.low": value.low, f"{name}.high": value.high}
        else:
            flat[name] = float(value)
    return flat


def _grouped(flat: dict) -> dict:
    """The inverse of :func:`_flat`; columns that are empty belong to other rows."""
    flat = {name: value for name, value in flat.items() if value != ""}
    ends = (".low", ".high")
    return {
        name: Estimate(*(float(flat[name + end]) for end in ("", *ends))) if f"{name}.low" in flat else float(value)
        for name, value in flat.items()
        if not (name.endswith(ends) and name.rsplit(".", 1)[0] in flat)
    }
