"""A table on disk that grows a row at a time: what is there is not computed again, so that a stopped run goes on."""

import ast
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from filelock import FileLock

from saliency_lib.estimates import Estimate
from saliency_lib.paths import PROJECT, atomic, rows_root


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
        row = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        known = self._table()
        if row in known.index:
            self.found += 1
            return _grouped(known.loc[row].drop(labels=list(key)).to_dict())
        values = _flat(compute())
        if clash := sorted(set(values) & set(key)):
            raise ValueError(f"{', '.join(clash)} cannot be both in a row's key and among its numbers")
        self.computed += 1
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock")):
            text = {name: [str(value)] for name, value in (key | values).items()}
            new = pd.DataFrame(text, index=pd.Index([row], name="row"))
            known = self._table()
            with atomic(self.path) as temporary:
                pd.concat([known[known.index != row], new]).to_csv(temporary)
        return _grouped(self._table().loc[row].drop(labels=list(key)).to_dict())

    def _table(self) -> pd.DataFrame:
        if not self.path.exists():
            return pd.DataFrame(index=pd.Index([], name="row"))
        return pd.read_csv(self.path, dtype=str, keep_default_na=False, index_col="row")


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
