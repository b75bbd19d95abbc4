"""The papers' claims and the verdicts that the numbers give on them.

Every claim is put as one or more quantities with the range in which it holds. A quantity agrees if its 95 % interval
lies inside the range, differs if the interval lies outside, and else cannot tell. A claim agrees if all of its
quantities do, and differs if one of them does.
"""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from saliency_lib.estimates import Estimate, number
from saliency_lib.runtime.store import PROJECT

AGREES, DIFFERS, CANNOT_TELL, NOT_TESTABLE = "agrees", "differs", "cannot tell", "not testable at this size"


@dataclass(frozen=True)
class Quantity:
    """Something measured, and the range [low, high] in which the claim holds.

    ``over`` names what the interval is over: other ``"networks"`` (the jackknife over members), other ``"images"``, or
    other halves or groups of the same networks.
    """

    name: str
    estimate: Estimate
    low: float = -math.inf
    high: float = math.inf
    over: str = "networks"

    @property
    def verdict(self) -> str:
        """One of ``AGREES``, ``DIFFERS`` and ``CANNOT_TELL``."""
        if not all(map(math.isfinite, self.estimate)):
            return CANNOT_TELL
        if self.low <= self.estimate.low and self.estimate.high <= self.high:
            return AGREES
        return DIFFERS if self.estimate.high < self.low or self.high < self.estimate.low else CANNOT_TELL

    @property
    def holds(self) -> str:
        """The range in words."""
        if math.isinf(self.low):
            return f"at most {self.high:.3g}"
        return f"at least {self.low:.3g}" if math.isinf(self.high) else f"{self.low:.3g} to {self.high:.3g}"


def all_claims() -> dict[str, dict[str, str]]:
    """``data/published/claims.csv`` by id."""
    with (PROJECT / "data" / "published" / "claims.csv").open(newline="", encoding="utf-8") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def published(table: str) -> pd.DataFrame:
    """A table of a paper, ``data/published/<table>.csv``; raises ValueError for an unknown one."""
    folder = PROJECT / "data" / "published"
    if table not in (known := sorted(path.stem for path in folder.glob("*.csv"))):
        raise ValueError(f"unknown table {table!r}; one of {known}")
    return pd.read_csv(folder / f"{table}.csv")


def judge(claim: str, *quantities: Quantity, remark: str = "") -> dict:
    """The verdict on a claim, ready for a figure's JSON.

    Raises
    ------
    ValueError
        For an unknown claim, or one without a quantity.
    """
    if claim not in all_claims():
        raise ValueError(f"unknown claim {claim!r}; see data/published/claims.csv")
    if not quantities:
        raise ValueError(f"claim {claim} needs at least one quantity to be judged by")
    parts = [q.verdict for q in quantities]
    verdict = DIFFERS if DIFFERS in parts else AGREES if set(parts) == {AGREES} else CANNOT_TELL
    return {
        "claim": claim,
        "verdict": verdict,
        "remark": remark,
        "quantities": [
            {"name": q.name, **q.estimate._asdict(), "over": q.over, "holds": q.holds, "verdict": q.verdict}
            for q in quantities
        ],
    }


def not_testable(claim: str, why: str) -> dict:
    """The verdict on a claim that this run cannot test, ready for a figure's JSON."""
    if claim not in all_claims():
        raise ValueError(f"unknown claim {claim!r}; see data/published/claims.csv")
    return {"claim": claim, "verdict": NOT_TESTABLE, "remark": why, "quantities": []}


def interval(quantity: dict) -> str:
    """A quantity of a verdict with its 95 % interval, three significant digits each."""
    return f"{number(quantity['value'])} [{number(quantity['low'])}, {number(quantity['high'])}]"


def table(*judged: dict) -> pd.DataFrame:
    """Verdicts with their quantities, one line per quantity, to be shown in a notebook."""
    lines = []
    for verdict in judged:
        claim = f"{verdict['claim']}: {all_claims()[verdict['claim']]['claim']}"
        known = {"claim": claim, "verdict": verdict["verdict"]}
        for q in verdict["quantities"] or [None]:
            measured = {} if q is None else {
                "measured": q["name"],
                "value": f"{interval(q)} over {q['over']}",
                "agrees if": q["holds"],
                "so it": q["verdict"],
            }  # fmt: skip
            lines.append(known | measured)
    return pd.DataFrame(lines).fillna("").set_index(["claim", "verdict"])


def verdicts(folder: Path) -> dict[str, dict]:
    """Verdicts in the figures' JSON of one profile, in the order of claims.csv; each has the id of its ``figure``."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        for verdict in json.loads(path.read_text(encoding="utf-8")).get("verdicts", []):
            found[verdict["claim"]] = verdict | {"figure": path.stem}
    return {claim: found[claim] for claim in all_claims() if claim in found}
