"""Compare regenerated numbers with the committed ones."""

import json
import math
from pathlib import Path


def flatten(value, path: str = "") -> dict[str, object]:
    """Leaves by path; an estimate (value, low, high) counts as one leaf."""
    if isinstance(value, dict) and set(value) != {"value", "low", "high"}:
        return {k: v for key, item in value.items() for k, v in flatten(item, f"{path}.{key}".lstrip(".")).items()}
    return {path: value}


def moved(old, new) -> bool:
    """Whether a number is another one: estimates by more than twice the combined interval, all else at all.

    Floats that are no estimates are closed forms; they may differ in the last digits that JSON keeps.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        if None in (old["value"], new["value"]):
            return old["value"] is not new["value"]
        if None in (old["low"], old["high"], new["low"], new["high"]):
            return False
        half = math.hypot((old["high"] - old["low"]) / 2, (new["high"] - new["low"]) / 2)
        return abs(new["value"] - old["value"]) > 2 * half
    if isinstance(old, list) and isinstance(new, list):
        return len(old) != len(new) or any(map(moved, old, new))
    if isinstance(old, float) and isinstance(new, (float, int)):
        return not math.isclose(old, new, rel_tol=1e-5, abs_tol=1e-9)
    return old != new


def compare(committed: Path, regenerated: Path) -> tuple[list[str], int]:
    """Sentences on what moved, appeared or went in ``regenerated``, and how many numbers were compared."""
    lines, count = [], 0
    for path in sorted(regenerated.glob("*.json")):
        if not (committed / path.name).exists():
            lines.append(f"{path.stem}: no committed numbers to compare with")
            continue
        old, new = (json.loads((folder / path.name).read_text(encoding="utf-8")) for folder in (committed, regenerated))
        before, after = flatten(old["numbers"]), flatten(new["numbers"])
        for name in sorted(set(before) | set(after)):
            count += 1
            if name not in after or name not in before:
                lines.append(f"{path.stem}: {name} {'is gone' if name not in after else 'is new'}")
            elif moved(before[name], after[name]):
                lines.append(f"{path.stem}: {name} moved from {words(before[name])} to {words(after[name])}")
        # between either and "cannot tell" a verdict may pass while its numbers stay within their intervals
        judged = [{v["claim"]: v["verdict"] for v in content["verdicts"]} for content in (old, new)]
        for claim in sorted(set(judged[0]) & set(judged[1])):
            if {judged[0][claim], judged[1][claim]} == {"agrees", "differs"}:
                lines.append(f"{path.stem}: the verdict on {claim} moved from {judged[0][claim]} to {judged[1][claim]}")
    return lines, count


def words(value) -> str:
    """An estimate as ``0.5 [0.4, 0.6]``, anything else as it is."""
    if isinstance(value, dict):
        return f"{value['value']} [{value['low']}, {value['high']}]"
    return str(value)
