"""What stands beside a figure in words: what it reproduces, and its alternative text; ``data/figures.csv``."""

import csv
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from saliency_lib.runtime.store import SHARED


class Caption(NamedTuple):
    """The figure of a paper that it reproduces, or what it adds; and what it shows, for those who cannot see it."""

    paper: str
    alt: str


@lru_cache(maxsize=1)
def table() -> dict[str, Caption]:
    """All of them by the figure's name, with braces where words of a run go."""
    with (SHARED / "data" / "figures.csv").open(newline="", encoding="utf-8") as file:
        return {row["figure"]: Caption(row["paper"], row["alt"]) for row in csv.DictReader(file)}


def of(name: str, words: Sequence = ()) -> Caption:
    """The caption of a figure, ``words`` in its braces; one that is not in the table, as of a trial, has its name."""
    paper, alt = table().get(name, Caption("beyond the papers", name.replace("_", " ")))
    return Caption(paper, alt.format(*map(in_words, words)))


def in_words(value) -> str:
    """``"NoiseGrad 0.37, SmoothGrad 0.09"`` of a mapping, of whose estimates the values; all else as it is written."""
    if not isinstance(value, Mapping):
        return str(value)
    return ", ".join(f"{' '.join(name.split())} {getattr(each, 'value', each):.3g}" for name, each in value.items())
