"""An audit's numbers in plain words: what can be said, and what cannot."""

import math
from collections.abc import Iterator
from itertools import combinations

from saliency_lib import snr
from saliency_lib.audit.agreement import Agreement
from saliency_lib.audit.signal import Signal
from saliency_lib.estimates import Estimate, number


def finite(estimate: Estimate) -> bool:
    """Whether the estimate has a bounded interval."""
    return all(map(math.isfinite, estimate))


def interval(estimate: Estimate) -> str:
    """Three significant digits with the interval, where there is one."""
    if not finite(estimate):
        return f"{number(estimate.value)} (no interval)"
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def within(estimate: Estimate, low: float = -1.0, high: float = 1.0) -> Estimate:
    """The estimate with its interval cut off at what its value can be."""
    return Estimate(estimate.value, max(estimate.low, low), min(estimate.high, high)) if finite(estimate) else estimate


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

    if not finite(estimate):
        return f"{count(estimate.value)} (no interval)"
    most = "any number" if estimate.low <= 0 else count(estimate.low)
    return f"{count(estimate.value)} [{count(estimate.high)}, {most}]"


def of_noise(found: dict[str, Signal], members: int, goal: float, copies: bool = False) -> Iterator[str]:
    """Sentences on signal and noise; ``copies`` are of one network, with noise on their weights."""
    what = "copies" if copies else "networks"
    for name, s in found.items():
        ratio = (
            f"{name}: what the {members} {what} share is {interval(s.debiased)} times what is a single map's own (SNR)"
        )
        null = f"for the same maps, moved about at random, it is {interval(s.null)}"
        if copies:
            yield f"{ratio}. That is noise put on weights; how many seeds would be needed cannot be told from it."
        elif not finite(s.debiased):
            yield f"{ratio}; {null}. Without intervals nothing can be concluded."
        elif not s.shown:
            yield f"{ratio}; {null}. The intervals meet, so that no message with a place in the picture is shown."
        else:
            needed = seeds_needed(s.debiased, goal)
            yield f"{ratio}; {null}. For a mean map with an SNR of {goal:g}, average this many networks: {needed}."
    if found and not copies and members > 2:
        yield f"Intervals are 95 %, over the {members} networks (jackknife), for these pictures."
    if len(found) < 2:
        return
    if copies or members < 3:
        yield "Methods are not ranked: that takes three networks at least."
        return
    apart = ranked({name: s.debiased for name, s in found.items()})
    pairs = "; ".join(f"{a} above {b}" for a, b in apart)
    yield (
        (f"Intervals that do not overlap: {pairs}. No other two methods are ranked." if apart else
         f"The {len(found)} methods are not ranked, since all intervals overlap.")
        + (" Three networks rarely rank anything." if members == 3 else "")
    )  # fmt: skip


def of_agreement(found: dict[str, Agreement], copies: bool = False) -> Iterator[str]:
    """Sentences on the pixels where members agree."""
    for name, a in found.items():
        readable = a.readable.double().mean().item()
        which = "in sign" if a.signed else "in what lies above the map's own mean"
        share = f"{name}: at least {a.votes} of {a.members} agree {which} on {readable:.0%} of the pixels"
        if copies:
            yield f"{share}. They are copies of one network, so that this says little of another training."
        elif readable <= 2 * a.by_chance:
            yield f"{share}; tossed signs do on {a.by_chance:.0%}. Most of it may be luck: read no pixel."
        else:
            luck = f"about {a.by_chance / readable:.0%} of these by luck"
            yield f"{share}, {luck} if signs were tossed. Do not read the others."
    if found and not copies:
        yield (
            "Luck is reckoned pixel by pixel; since neighbours depend on each other, it comes in patches, and its "
            "share varies more than for independent pixels."
        )


def of_random(last: dict[str, Estimate], control: dict[str, Estimate | None], over: str) -> Iterator[str]:
    """Sentences on the sanity check.

    Parameters
    ----------
    last : dict
        By method, similarity to the maps of a network whose weights are all redrawn.
    control : dict
        The same of two trained networks' maps; None where there are no two.
    over : str
        What the intervals of ``last`` are over.
    """
    for name, broken in last.items():
        trained = control[name]
        if trained is None:
            yield (
                f"{name}: with all weights redrawn the map's likeness to the trained one is {interval(broken)}. "
                "Without a second network it cannot be told how much another training would keep."
            )
        elif not (finite(broken) and finite(trained)):
            yield (
                f"{name}: random weights leave a likeness of {interval(broken)}, two trained networks have "
                f"{interval(trained)}. Without intervals nothing can be concluded."
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
                f"{interval(trained)}. The intervals meet, so that the check cannot tell."
            )
    if last:
        yield f"Likeness is the rank correlation of absolute values; intervals with random weights are over {over}."


def of_checkerboard(powers: dict[str, Estimate], over: str) -> Iterator[str]:
    """Sentences on strided convolutions."""
    if not powers:
        yield "There is no convolution of stride two that could print a pattern of period two; others are not measured."
        return
    above = {name: p for name, p in powers.items() if p.low > 1}
    for name, power in sorted(above.items(), key=lambda item: -item[1].value):
        yield (
            f"The gradient that comes back from {name} has {interval(power)} times the power at period two that "
            f"white noise has (over {over}): a checkerboard. downsampling.smooth_backward averages it out."
        )
    if not above:
        yield (
            "No convolution of stride two passes back clearly more power at period two than white noise has. Gradients "
            "smoother than noise may hold a pattern all the same: look at the maps."
        )
