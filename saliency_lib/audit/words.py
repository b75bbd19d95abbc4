"""An audit's numbers in plain words: what can be said, and what cannot."""

import math
from collections.abc import Iterator
from itertools import combinations

from saliency_lib import snr
from saliency_lib.audit.agreement import Agreement
from saliency_lib.claims import number
from saliency_lib.estimates import Estimate


def interval(estimate: Estimate) -> str:
    """Three significant digits with the interval, where there is one."""
    if not math.isfinite(estimate.low) or not math.isfinite(estimate.high):
        return f"{number(estimate.value)} (no interval)"
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def ranked(estimates: dict[str, Estimate]) -> list[tuple[str, str]]:
    """Pairs (higher, lower) whose intervals do not overlap; no others are ranked."""
    found = []
    for a, b in combinations(estimates, 2):
        if estimates[a].low > estimates[b].high:
            found.append((a, b))
        elif estimates[b].low > estimates[a].high:
            found.append((b, a))
    return found


def seeds_needed(estimate: Estimate, goal: float) -> str:
    """Networks to average for the mean map to reach an SNR of ``goal``, with the range that the interval allows."""

    def count(value: float) -> str:
        return str(snr.members_needed(value, goal)) if value > 0 and math.isfinite(value) else "no number"

    if not math.isfinite(estimate.low) or not math.isfinite(estimate.high):
        return f"{count(estimate.value)} (no interval)"
    most = "any number" if estimate.low <= 0 else count(estimate.low)
    return f"{count(estimate.value)} [{count(estimate.high)}, {most}]"


def of_noise(rows: dict[str, dict], members: int, goal: float, what: str) -> Iterator[str]:
    """Sentences on signal and noise; ``rows`` are :meth:`saliency_lib.survey.Survey.row` by method."""
    for name, row in rows.items():
        yield (
            f"{name}: what the {members} {what} share is {interval(row['debiased'])} times what is a single map's own "
            f"(SNR); for the same maps moved about at random it is {number(row['null debiased'])} times. "
            f"For a mean map with an SNR of {goal:g}, average this many: {seeds_needed(row['debiased'], goal)}."
        )
        if row["debiased"].low <= row["null debiased"]:
            yield f"{name}: the interval holds what maps without a place score, so that no shared message is shown."
    if len(rows) < 2:
        return
    apart = ranked({name: row["debiased"] for name, row in rows.items()})
    few = " Three networks rarely rank anything." if members <= 3 else ""
    if not apart:
        yield f"The {len(rows)} methods are not ranked, since all intervals overlap.{few}"
    else:
        pairs = "; ".join(f"{a} above {b}" for a, b in apart)
        yield f"Intervals that do not overlap: {pairs}. No other two methods are ranked.{few}"


def of_agreement(found: dict[str, Agreement]) -> Iterator[str]:
    """Sentences on the pixels where members agree."""
    for name, a in found.items():
        readable = a.readable.double().mean().item()
        yield (
            f"{name}: at least {a.votes} of {a.members} agree in sign on {readable:.0%} of the pixels; tossed signs "
            f"do on {a.by_chance:.0%}. Do not read the others."
        )
    if found and a.by_chance > 0.05:
        yield "With fewer than six members even unanimous signs are too often luck: read areas, not single pixels."


def of_random(last: dict[str, Estimate], control: dict[str, Estimate | None]) -> Iterator[str]:
    """Sentences on the sanity check.

    Parameters
    ----------
    last : dict
        By method, similarity to the maps of a network whose weights are all redrawn.
    control : dict
        The same of two trained networks' maps; None where there are no two.
    """
    for name, broken in last.items():
        trained = control[name]
        if trained is None:
            level = "half or more" if broken.low >= 0.5 else "less than half" if broken.high <= 0.5 else "about half"
            yield (
                f"{name}: with all weights redrawn the map's likeness to the trained one is {interval(broken)}, {level}"
                " of a perfect one; without a second network it cannot be told how much another training would keep."
            )
        elif broken.low > trained.high:
            yield (
                f"{name}: a network with random weights gives maps more like the trained one's ({interval(broken)}) "
                f"than another trained network does ({interval(trained)}). They show the input and the architecture: "
                "do not take them for what was learned."
            )
        elif broken.high < trained.low:
            yield (
                f"{name}: likeness falls from {interval(trained)} between trained networks to {interval(broken)} with "
                "random weights. The maps depend on what was learned."
            )
        else:
            yield (
                f"{name}: random weights leave a likeness of {interval(broken)}, two trained networks have "
                f"{interval(trained)}; these overlap, so that the check cannot tell."
            )


def of_checkerboard(powers: dict[str, Estimate]) -> Iterator[str]:
    """Sentences on strided convolutions."""
    if not powers:
        yield "There are no strided convolutions, so that none can print a checkerboard."
        return
    above = {name: p for name, p in powers.items() if p.low > 1}
    for name, power in sorted(above.items(), key=lambda item: -item[1].value):
        yield (
            f"The gradient that comes back from {name} has {interval(power)} times the power at period two that "
            "white noise has: a checkerboard, which downsampling.smooth_backward averages out (notebook 08)."
        )
    if not above:
        yield "No strided convolution passes back more power at period two than white noise has, beyond doubt."
