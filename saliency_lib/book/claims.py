"""The papers' claims and the verdicts that the numbers give on them.

``data/readings.csv`` puts every claim as one or more quantities with the range in which it holds. A quantity agrees if
its 95 % interval lies inside the range, and differs if it lies outside, also after Holm's correction for all quantities
of the claim; else it cannot tell. A claim agrees if all of its quantities do, and differs if one of them does.
"""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from saliency_lib.estimates import Estimate, over_rows
from saliency_lib.runtime.store import SHARED

AGREES, DIFFERS, CANNOT_TELL, NOT_TESTABLE = "agrees", "differs", "cannot tell", "not testable at this size"
IDENTITY, TO_RUN = "identity", "to be run again"  # holds by construction; measured by a reading that has changed since
FIRST, SECOND = "first", "second"  # readings of a claim; the first decides, and identities are listed as a third


@dataclass(frozen=True)
class Quantity:
    """Something measured, and the range [low, high] in which the claim holds.

    ``unit`` is what the interval is over: other networks, images, scans; ``reading`` is one of ``FIRST``, ``SECOND``
    and ``IDENTITY``.
    """

    name: str
    estimate: Estimate
    low: float = -math.inf
    high: float = math.inf
    unit: str = "networks"
    reading: str = FIRST

    @property
    def holds(self) -> str:
        """The range in words."""
        if math.isinf(self.low):
            return f"at most {self.high:.3g}"
        return f"at least {self.low:.3g}" if math.isinf(self.high) else f"{self.low:.3g} to {self.high:.3g}"


def verdicts_of(quantities: Sequence[Quantity]) -> list[str]:
    """``AGREES``, ``DIFFERS`` or ``CANNOT_TELL`` for each; Holm's step-down test among all says which differ."""
    p = [q.estimate.outside(q.low, q.high) for q in quantities]
    differ, found = True, {}
    for place, k in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        differ = differ and p[k] < 0.05 / (len(p) - place)
        e, q = quantities[k].estimate, quantities[k]
        inside = e.bounded and q.low <= e.low and e.high <= q.high
        found[k] = DIFFERS if differ else AGREES if inside else CANNOT_TELL
    return [found[k] for k in range(len(p))]


def together(verdicts: Sequence[str]) -> str:
    """What several verdicts are together: none of them may differ, and all must agree."""
    return DIFFERS if DIFFERS in verdicts else AGREES if set(verdicts) == {AGREES} else CANNOT_TELL


@cache
def all_claims() -> dict[str, dict[str, str]]:
    """``data/published/claims.csv`` by id."""
    with (SHARED / "data" / "published" / "claims.csv").open(newline="", encoding="utf-8") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


@cache
def all_readings() -> dict[str, dict[str, dict[str, str]]]:
    """``data/readings.csv`` by claim and quantity."""
    found: dict = {claim: {} for claim in all_claims()}
    with (SHARED / "data" / "readings.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found[row["claim"]][row["quantity"]] = row
    return found


def published(table: str) -> pd.DataFrame:
    """A table of a paper, ``data/published/<table>.csv``; raises ValueError for an unknown one."""
    folder = SHARED / "data" / "published"
    if table not in (known := sorted(path.stem for path in folder.glob("*.csv"))):
        raise ValueError(f"unknown table {table!r}; one of {known}")
    return pd.read_csv(folder / f"{table}.csv")


def judge(claim: str, found: Mapping[str, Any], remark: str = "", **limits) -> dict:
    """The verdict on a claim, ready for a figure's JSON.

    Parameters
    ----------
    claim : str
        Its id.
    found : dict
        What was measured, by the quantities of the claim's readings: an :class:`Estimate`, or one for each of several
        networks, methods or whatever they are, all of which must lie in the range; none of them where this run has
        nothing to say. A pandas series or table stands for :func:`~saliency_lib.estimates.over_rows` of it.
    remark : str
        What a reader should know beside the numbers.
    **limits : float
        Limits that the readings name in place of a number.

    Raises
    ------
    ValueError
        For an unknown claim, and for quantities that are not those of its readings.
    """
    _known(claim)
    readings = all_readings()[claim]
    if odd := sorted(set(found) ^ set(readings)):
        raise ValueError(f"claim {claim}: data/readings.csv and the notebook do not both have {odd}")
    quantities = []
    for name, row in readings.items():
        low, high = (_limit(row[side], limits, side) for side in ("low", "high"))
        value = found[name]
        value = over_rows(value) if isinstance(value, (pd.Series, pd.DataFrame)) else value
        each = {"": value} if isinstance(value, Estimate) else value
        quantities += [
            Quantity(f"{name}, {subject}" if subject else name, e, low, high, row["unit"], row["reading"])
            for subject, e in each.items()
        ]
    return judged(claim, quantities, remark)


def judged(claim: str, quantities: Sequence[Quantity], remark: str = "") -> dict:
    """The verdict that quantities give together; ValueError for none."""
    if not quantities:
        raise ValueError(f"claim {claim} needs at least one quantity to be judged by")
    by_reading = {kind: [q for q in quantities if q.reading == kind] for kind in (FIRST, SECOND, IDENTITY)}
    parts = {kind: verdicts_of(some) for kind, some in by_reading.items()}
    verdict, identity = (together(parts[kind]) for kind in (FIRST, IDENTITY))
    if DIFFERS in parts[IDENTITY]:
        verdict = DIFFERS
    elif not parts[FIRST]:
        verdict = IDENTITY if identity == AGREES else CANNOT_TELL
    second = {"second reading": together(parts[SECOND])} if parts[SECOND] else {}
    each = [_in_json(q, part) for kind, some in by_reading.items() for q, part in zip(some, parts[kind])]
    return {"claim": claim, "verdict": verdict, **second, "remark": remark, "quantities": each}


def not_testable(claim: str, why: str) -> dict:
    """The verdict on a claim that this run cannot test, ready for a figure's JSON."""
    _known(claim)
    return {"claim": claim, "verdict": NOT_TESTABLE, "remark": why, "quantities": []}


def number(value: float | None) -> str:
    """Three significant digits, or a dash for an unbounded value."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3g}"


def interval(quantity: dict) -> str:
    """A quantity of a verdict with its 95 % interval, three significant digits each."""
    return f"{number(quantity['value'])} [{number(quantity['low'])}, {number(quantity['high'])}]"


def verdicts(folder: Path) -> dict[str, dict]:
    """Verdicts in the figures' JSON of one profile, in the order of claims.csv; each has the id of its ``figure``."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        for verdict in json.loads(path.read_text(encoding="utf-8")).get("verdicts", []):
            found[verdict["claim"]] = verdict | {"figure": path.stem}
    return {claim: found[claim] for claim in all_claims() if claim in found}


def _known(claim: str) -> None:
    if claim not in all_claims():
        raise ValueError(f"unknown claim {claim!r}; see data/published/claims.csv")


def _limit(written: str, limits: Mapping[str, float], side: str) -> float:
    """A limit of a range: a number, the name of a computed one, after a minus if it is its negative, or none at all."""
    if not written:
        return -math.inf if side == "low" else math.inf
    try:
        return float(written)
    except ValueError:
        name = written.removeprefix("-")
    if name not in limits:
        raise ValueError(f"data/readings.csv has the limit {name!r}, which the notebook does not give")
    return -limits[name] if written != name else limits[name]


def _in_json(q: Quantity, verdict: str) -> dict:
    """A quantity for a figure's JSON; how many would settle it stands there where it cannot tell."""
    needed = q.estimate.needed(q.low, q.high) if verdict == CANNOT_TELL else None
    if needed and needed <= q.estimate.n:  # it is Holm's correction that more of them would have to meet
        needed = None
    return {
        "name": q.name,
        **q.estimate.in_full(),
        "range": [q.low, q.high],
        "unit": q.unit,
        "reading": q.reading,
        "holds": q.holds,
        "verdict": verdict,
        **({"needed": needed} if needed else {}),
    }
