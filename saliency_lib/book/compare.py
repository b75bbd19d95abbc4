"""Compare regenerated numbers with the committed ones.

Two runs draw other networks, also by the rounding of another processor, so that estimates differ by chance. One has
moved if its difference is beyond what the intervals of both allow (Welch's t test), at 5 % for all comparisons together
(Bonferroni). Numbers without an interval are closed forms: they may differ in the last digits that JSON keeps.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from scipy import stats

from saliency_lib.book.claims import AGREES, DIFFERS
from saliency_lib.book.measured import OF_ROWS
from saliency_lib.estimates import welch

ESTIMATE = {"value", "low", "high"}
NONE = "no verdict"
PAPERS_NAMES = {  # of methods, in the numbers of figures; gradient_x_pixels takes black for zero
    "input_gradient": "gradient", "gradient_x_pixels": "gradient × input", "smoothgrad": "SmoothGrad",
    "gradient_x_input": "gradient × (input − mean)", "vargrad": "VarGrad", "deeplift": "DeepLIFT",
    "integrated_gradients": "integrated gradients", "smoothgrad_ig": "SmoothGrad-IG", "gradcam": "GradCAM",
    "guided_backprop": "guided backprop", "guided_gradcam": "guided GradCAM",
}  # fmt: skip


class Comparison(NamedTuple):
    """What became of the numbers: a line for each figure that moved, one for each verdict that changed, and counts."""

    figures: list[str]
    verdicts: list[str]
    counts: Counter
    reversed: int

    @property
    def passes(self) -> bool:
        """Whether no number moved, and no verdict went from agrees to differs or back."""
        return not self.figures and not self.reversed

    def __str__(self) -> str:
        words = ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))
        return f"numbers: {words}; {len(self.figures)} figures and {len(self.verdicts)} verdicts changed"

    def markdown(self) -> str:
        """A page that says the same, for a comment."""
        parts = [f"**{'Nothing moved' if self.passes else 'Numbers moved'}.** {self}"]
        for title, found in (("Figures with numbers that moved", self.figures), ("Verdicts", self.verdicts)):
            parts += ["\n".join([f"### {title}", "", *(f"- {line}" for line in found)])] if found else []
        return "\n\n".join(parts) + "\n"


def flatten(value, path: str = "") -> dict[str, object]:
    """Leaves by path; an estimate counts as one leaf."""
    if isinstance(value, dict) and not set(value) >= ESTIMATE:
        return {k: v for key, item in value.items() for k, v in flatten(item, f"{path}.{key}".lstrip(".")).items()}
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return {k: v for i, item in enumerate(value) for k, v in flatten(item, f"{path}[{i}]").items()}
    return {path: value}


def renamed(value, names: Mapping[str, str] = PAPERS_NAMES):
    """The same with other names in its keys, which are names or such as ``"a, b"``; values stay as they are."""
    if not isinstance(value, dict):
        return value
    keys = {key: ", ".join(names.get(part, part) for part in key.split(", ")) for key in value}
    return {keys[key]: renamed(inner, names) for key, inner in value.items()}


def chance(old: dict, new: dict) -> float:
    """p value of the difference of two independent estimates (Welch's t test); 1 where one has no interval."""
    known = [old[name] for name in ESTIMATE] + [new[name] for name in ESTIMATE]
    if None in known:
        return 1.0
    lower, upper = sorted((old, new), key=lambda e: e["value"])
    sides = ((lower["high"] - lower["value"], lower), (upper["value"] - upper["low"], upper))
    error, df = welch(*((half, e.get("df", math.inf)) for half, e in sides))
    if not error:
        return float(math.isclose(lower["value"], upper["value"], rel_tol=1e-5, abs_tol=1e-9))
    return float(2 * stats.t.sf((upper["value"] - lower["value"]) / error, df))


def same(old, new) -> bool:
    """Whether two values that are no estimates are equal, floats but for their last digits."""
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(same, old, new))
    if isinstance(old, float) and isinstance(new, (float, int)):
        return math.isclose(old, new, rel_tol=1e-5, abs_tol=1e-9)
    return old == new


def compare(folders: Iterable[tuple[Path, Path]]) -> Comparison:
    """What moved, appeared or went in regenerated against committed folders of figures' JSON, ``(committed,
    regenerated)`` for each data set and network."""
    pairs, lines = {}, []
    for committed, regenerated in folders:
        new = sorted(regenerated.glob("*.json"))
        books = {path.name[:2] for path in new}
        names = {path.name for path in new} | {f"{name}.json" for name in OF_ROWS}
        old = sorted(path for path in committed.glob("*.json") if path.name[:2] in books)
        lines += [f"{path.stem}: it is gone" for path in old if path.name not in names]
        for path in new:
            if (old := committed / path.name).exists():
                pairs[old.parent, path.stem] = [json.loads(at.read_text(encoding="utf-8")) for at in (old, path)]
            else:
                lines.append(f"{path.stem}: no committed numbers to compare with")
    leaves = {name: [flatten(each["numbers"]) for each in both] for name, both in pairs.items()}
    counts = Counter(kind(old[name]) for old, new in leaves.values() for name in old.keys() & new.keys())
    limit = 0.05 / max(counts["estimates"], 1)
    for (_, figure), (old, new) in leaves.items():
        moved = [words for name in sorted(old | new) if (words := change(old, new, name, limit))]
        if moved:
            lines.append(f"{figure}: {len(moved)} of {len(old | new)} moved: {'; '.join(moved)}")
    changed = []
    for (_, figure), both in pairs.items():
        before, after = ({v["claim"]: v["verdict"] for v in each["verdicts"]} for each in both)
        claims = [claim for claim in sorted(before | after) if before.get(claim) != after.get(claim)]
        changed += [(f"{claim} ({figure})", before.get(claim, NONE), after.get(claim, NONE)) for claim in claims]
    reversed_ = sum({old, new} == {AGREES, DIFFERS} for _, old, new in changed)
    return Comparison(lines, [f"{what}: {old} became {new}" for what, old, new in changed], counts, reversed_)


def kind(value: object) -> str:
    """What is compared: an estimate, one without an interval, or what is exact."""
    if not isinstance(value, dict):
        return "exact"
    return "without an interval" if None in (value["low"], value["high"]) else "estimates"


def change(old: dict, new: dict, name: str, limit: float) -> str:
    """What became of one number, in words; nothing if it is the same."""
    if name not in old or name not in new:
        return f"{name} {'is gone' if name in old else 'is new'}"
    a, b = old[name], new[name]
    both = isinstance(a, dict) and isinstance(b, dict)
    return "" if (chance(a, b) >= limit if both else same(a, b)) else f"{name} from {words(a)} to {words(b)}"


def words(value: object) -> str:
    """An estimate as ``0.5 [0.4, 0.6]``, anything else as it is."""
    if isinstance(value, dict):
        return f"{value['value']} [{value['low']}, {value['high']}]"
    return str(value)
