"""Rows that were measured on the papers' data: the file ``rows.csv`` of a folder of figures, and its table."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from saliency_lib import controls, snr
from saliency_lib.book import rows
from saliency_lib.book.claims import number
from saliency_lib.estimates import GROUPS, Estimate
from saliency_lib.runtime.store import atomic, locked

FILE, OF_ROWS = "rows.csv", ("03_why_cifar",)  # and the figures that are drawn from it, by no notebook
HEAD = ("recipe", "networks", "epoch", "method", "images", "SNR (Eq. 5)", "corrected", "the paper's, corrected",
        "accuracy", "of training images")  # fmt: skip


def read(table: Path) -> list[dict[str, str]]:
    """Rows that were measured, in their order."""
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def has(table: Path, known: Mapping) -> bool:
    """Whether there is a row with all of these values."""
    return any(all(row.get(name, "") == str(value) for name, value in known.items()) for row in read(table))


def append(table: Path, known: Mapping, found: Mapping) -> None:
    """Add what was found, unless another process has put a row of what is ``known`` meanwhile.

    A stop at any moment leaves a whole table.
    """
    with locked(table.with_name(".rows.lock")):
        if has(table, known):
            return
        every = [*read(table), {name: str(value) for name, value in {**known, **found}.items()}]
        names = dict.fromkeys(name for each in every for name in each)
        with atomic(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            out = csv.DictWriter(file, list(names), restval="")
            out.writeheader()
            out.writerows(every)


def plugin(row: Mapping[str, str]) -> Estimate:
    """A row's SNR by Eq. 5, with its interval over members."""
    n = int(row["members"])
    return Estimate(float(row["snr"]), float(row["low"]), float(row["high"]), df=min(n, GROUPS) - 1, n=n)


def corrected(row: Mapping[str, str]) -> Estimate:
    """The same less what noise adds to it, and what few members add where a map is worth few independent pixels."""
    n, excess = int(row["members"]), _excess(row, int(row["members"]))
    ends = (float(row[name]) for name in ("corrected", "corrected low", "corrected high"))
    value, low, high = (snr.rooted((end**2 + 1 / n) / excess**2 - 1 / n) for end in ends)
    return Estimate(value, low, high, df=min(n, GROUPS) - 1, n=n)


def _excess(row: Mapping[str, str], members: int) -> float:
    """How many times too large Eq. 5 is for the few pixels that the row's maps are worth, where that was measured."""
    return controls.inflation(float(row["independent"]), members) if row.get("independent") else 1.0


def of_paper(row: Mapping[str, str]) -> float | None:
    """The paper's SNR of the row's method, network and data set, corrected alike, where it has one."""
    dataset, _, model = row["network"].rpartition("-")[0].partition("-")
    name = " ".join(row["method"].split()[: 2 if "gradcam" in row["method"] else 1])
    found = rows.of_paper(name, model, dataset, _excess(row, rows.PAPERS))
    return found[0] if len(found) == 1 else None


def lines(table: Path) -> Iterator[list[str]]:
    """The rows as cells of a Markdown table under ``HEAD``, those of an ensemble by epoch."""
    found = read(table)
    recipes = list(dict.fromkeys(row["arm"] for row in found))
    for row in sorted(found, key=lambda row: (recipes.index(row["arm"]), int(row["members"]), int(row["epoch"]))):
        paper, alone = of_paper(row), "no map: one number" if row.get("independent") == "1" else ""
        method = ", ".join(filter(None, (row["method"], row["asked"], alone)))
        yield [
            row["arm"] or "–", row["members"], row["epoch"], method,
            row["images"], str(plugin(row)), str(corrected(row)), "–" if paper is None else number(paper),
            f"{float(row['accuracy']):.3f}", f"{float(row['training accuracy']):.3f}",
        ]  # fmt: skip
