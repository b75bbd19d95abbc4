"""An audit's numbers in plain words: what can be said, and what cannot."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, permutations

from torch import Tensor, nn

from saliency_lib import inference, snr
from saliency_lib.attribution import METHODS
from saliency_lib.audit.agreement import Agreement, Signal
from saliency_lib.audit.pictures import Pictures
from saliency_lib.estimates import Estimate


def within(likeness: Estimate) -> Estimate:
    """A correlation with its interval cut off at -1 and 1; unbounded stays so."""
    return likeness.map(lambda value: min(max(value, -1.0), 1.0))


def ranked(estimates: dict[str, Estimate]) -> list[tuple[str, str]]:
    """Pairs (higher, lower) whose intervals do not overlap; no others are ranked."""
    return [(a, b) for a, b in permutations(estimates, 2) if estimates[a].low > estimates[b].high]


def seeds_needed(estimate: Estimate, goal: float) -> str:
    """Networks to average for the mean map to reach an SNR of ``goal``, with the range that the interval allows."""

    def count(value: float) -> str:
        return str(snr.members_needed(value, goal)) if value > 0 and math.isfinite(value) else "no number"

    if not estimate.bounded:
        return f"{count(estimate.value)} (no interval)"
    most = "any number" if estimate.low <= 0 else count(estimate.low)
    return f"{count(estimate.value)} [{count(estimate.high)}, {most}]"


def of_noise(found: dict[str, Signal], members: int, goal: float, copies: bool = False) -> Iterator[str]:
    """Sentences on signal and noise; ``copies`` are of one network, with noise on their weights."""
    what = "copies" if copies else "networks"
    for name, s in found.items():
        measured = (
            f"{name}: what the {members} {what} share is {s.debiased} times what is a single map's own (SNR);"
            f" for the same maps, moved about at random, it is {s.null}. Of a map's power they share {s.more}"
            " more than of the moved ones."
        )
        if copies:
            yield f"{measured} That is noise put on weights; how many seeds would be needed cannot be told from it."
        elif not s.debiased.bounded:
            yield f"{measured} Without intervals nothing can be concluded."
        elif not s.shown:
            yield f"{measured} That is not surely more, so that no message with a place in the picture is shown."
        else:
            needed = seeds_needed(s.debiased, goal)
            yield f"{measured} For a mean map with an SNR of {goal:g}, average this many networks: {needed}."
    if found and not copies and members > 2:
        yield f"Intervals are 95 %, over the {members} networks (jackknife), for these pictures."
    if drawing := [name for name in found if name in METHODS and METHODS[name].stochastic]:
        names = ", ".join(drawing)
        yield f"A part of the noise of {names} is of their own draws: with more samples there is less of it."
    if len(found) > 1:
        yield _ranking({name: s.debiased for name, s in found.items()}, 1 if copies else members)


def _ranking(estimates: dict[str, Estimate], networks: int) -> str:
    if networks < 3:
        return "Methods are not ranked: that takes three networks at least."
    caution = " Three networks rarely rank anything." if networks == 3 else ""
    if apart := "; ".join(f"{a} above {b}" for a, b in ranked(estimates)):
        return f"Intervals that do not overlap: {apart}. No other two methods are ranked.{caution}"
    return f"The {len(estimates)} methods are not ranked, since all intervals overlap.{caution}"


def of_networks(names: Sequence[str], copies: int, what: str) -> Iterator[str]:
    """Which networks are audited; ``copies`` and ``what`` they are, where there is one network only."""
    if len(names) == 1:
        yield (
            f"One network, {names[0]}. How its maps would change if it were trained again cannot be told; what follows "
            f"on noise uses {copies} {what}, which is not the same."
        )
        return
    yield (
        f"{len(names)} networks: {', '.join(names)}. What follows supposes that they differ in their seed alone; "
        "snapshots of one training, or fine-tunings of one network, are alike for another reason."
    )
    if len(names) == 2:
        yield "Two networks give no intervals, so that nothing can be concluded: a third one helps most."


def of_constants(mean: Sequence[float], std: Sequence[float], whose: str, inputs: Tensor) -> str:
    """What pixels are brought to, and how inputs (n, c, h, w) are then."""
    mean_of, std_of = (", ".join(f"{value:.4g}" for value in values) for values in (mean, std))
    said = f"Pixels from 0 to 1 are shifted and scaled by a mean of {mean_of} and a deviation of {std_of}, {whose}."
    if whose == "ImageNet's":
        said += " If they were trained with others, give these as --mean and --std."
    return f"{said} So these pictures have a mean of {inputs.mean():.2f} and a deviation of {inputs.std():.2f}."


def of_pictures(pictures: Pictures, networks: Sequence[nn.Module], targets: Tensor, which: str) -> Iterator[str]:
    """Their number and size, the classes explained, and how often networks are right where folders are classes."""
    x, folders = pictures.inputs.to(targets.device), ()
    if pictures.folders_are_classes(inference.logits(networks[0], x[:1]).shape[1]):
        folders = pictures.folders
    whose = "pictures' folders" if which == "folders" and folders else "networks' joint predictions"
    yield (
        f"{len(x)} pictures of {tuple(x.shape[1:])}; the classes explained are the {whose}: "
        f"{counted(targets.tolist(), folders)}."
    )
    if folders and pictures.labels is not None:
        right = [inference.accuracy(network, x, pictures.labels.to(x.device)) for network in networks]
        yield f"Accuracy on them, by folder in alphabetical order: {min(right):.2f} to {max(right):.2f}."
        if max(right) <= 1 / len(folders):
            yield "That is no better than chance: look at the order of folders, --mean and --std, and the checkpoints."


def counted(targets: Iterable[int], names: Sequence[str] = ()) -> str:
    """Classes, by name where they have one, and how many pictures each is explained on, the five most frequent ones."""
    counts = Counter(targets).most_common()
    said = [f"{names[k] if names else f'class {k}'} ({n})" for k, n in counts[:5]]
    return ", ".join(said) + (f", and {len(counts) - 5} more" if len(counts) > 5 else "")


def of_next(
    noise: dict[str, Signal],
    last: dict[str, Estimate],
    control: dict[str, Estimate | None],
    members: int,
    goal: float,
    copies: bool = False,
) -> Iterator[str]:
    """What to do: which methods' maps not to read, over how many networks to average the others, what to train.

    ``noise``, ``members``, ``goal`` and ``copies`` are as for :func:`of_noise`, ``last`` and ``control`` as for
    :func:`of_random`.
    """
    refused: dict[str, list[str]] = {}
    for name, s in noise.items():
        trained, broken = control.get(name), last.get(name)
        if trained and broken and trained.bounded and broken.bounded and broken.low > trained.high:
            refused.setdefault("a network with random weights would show much the same", []).append(name)
        elif s.debiased.bounded and not s.shown:
            what = "copies" if copies else "networks"
            why = f"the {what} are not shown to share more than maps that were moved about at random"
            refused.setdefault(why, []).append(name)
    for why, names in refused.items():
        yield f"Do not read the maps of {', '.join(names)}: {why}."
    if copies:
        yield "Train the network again from two other seeds at least: one network cannot tell its own from the data's."
        return
    if members == 2:
        yield "Train a third network: two give no intervals, so that no method can be trusted or ruled out."
        return
    for name, s in noise.items():
        if name in chain(*refused.values()):
            continue
        if s.shown:
            yield f"{name}: {_to_average(s.debiased, members, goal)}"
        elif members > 2:
            yield f"{name}: nothing can be concluded, since its signal has no interval; more networks may give one."


def _to_average(single: Estimate, members: int, goal: float) -> str:
    """What to average for an SNR of ``goal``, given that of a single map and so many networks."""
    least, most = (snr.members_needed(value, goal) if value > 0 else math.inf for value in (single.high, single.low))
    if most <= 1:
        return f"a single map will do, its SNR is above {goal:g} already."
    if most <= members:
        return f"read the mean map of all {members} networks, whose SNR is above {goal:g}; a single map is noisier."
    if least > members:
        wanted = f"train {least - members} more at least, and average all"
        return f"the mean map of the {members} networks stays below an SNR of {goal:g}; {wanted}."
    sure = f"{most} would" if math.isfinite(most) else "and these do not tell how many would"
    return f"average all {members} networks; that may reach an SNR of {goal:g} or not, {sure}."


def of_agreement(found: dict[str, Agreement], copies: bool = False) -> Iterator[str]:
    """Sentences on the pixels where members agree."""
    for name, a in found.items():
        readable = a.readable.double().mean().item()
        which = "in sign" if a.signed else "in what lies above the map's own median"
        share = f"{name}: at least {a.votes} of {a.members} agree {which} on {readable:.0%} of the pixels"
        if copies:
            yield f"{share}. They are copies of one network, so that this says little of another training."
        elif readable <= 2 * a.by_chance:
            yield f"{share}; tossed signs do on {a.by_chance:.0%}. Most of it may be luck: read no pixel."
        else:
            luck = f"about {a.by_chance / readable:.0%} of these by luck"
            yield f"{share}, {luck} if signs were tossed. Do not read the others."
    if found and not copies:
        patches = "since neighbours depend on each other, it comes in patches"
        yield f"Luck is reckoned pixel by pixel; {patches}, and its share varies more than for independent pixels."


def of_random(last: dict[str, Estimate], control: dict[str, Estimate | None], over: str) -> Iterator[str]:
    """Sentences on the sanity check.

    By method, likeness of a trained network's maps to those of one whose weights are all redrawn (``last``, its
    intervals ``over`` networks or draws), and to another trained network's (``control``; None where there is none).
    """
    for name, broken in last.items():
        trained, left = control[name], f"{name}: random weights leave a likeness of {broken}"
        if trained is None:
            yield f"{left}. Without a second network it cannot be told how much another training would keep."
            continue
        both = f"{left}, two trained networks have {trained}."
        if not (broken.bounded and trained.bounded):
            yield f"{both} Without intervals nothing can be concluded."
        elif broken.low > trained.high:
            told = "Maps of random weights are the more alike: they show the input and the architecture"
            yield f"{both} {told}. Do not take them for what was learned."
        elif broken.high < trained.low:
            yield f"{both} The maps depend on what was learned."
        else:
            yield f"{both} The intervals meet, so that the check cannot tell."
    if last:
        yield f"Likeness is the rank correlation of absolute values; intervals with random weights are over {over}."


def of_checkerboard(powers: dict[str, Estimate] | None, over: str) -> Iterator[str]:
    """Sentences on strided convolutions; none on powers that could not be measured (None)."""
    if powers is None:
        return
    if not powers:
        yield "There is no convolution of stride two that could print a pattern of period two; others are not measured."
        return
    above = {name: p for name, p in powers.items() if p.low > 1}
    for name, power in sorted(above.items(), key=lambda item: -item[1].value):
        yield (
            f"The gradient that comes back from {name} has {power.value:.3g} [{power.low:.3g}, {power.high:.3g}] times "
            f"the power at period two that white noise has (over {over}): a checkerboard. In maps of the input, "
            'downsampling.smooth_backward(model, ["input"]) averages it out.'
        )
    untold = [name for name, power in powers.items() if power.low <= 1 < power.value]
    if above and untold:
        yield f"Of {', '.join(untold)} it cannot be told."
    if not above:
        yield "No convolution of stride two passes back clearly more power at period two than white noise has."
        yield "Gradients smoother than noise may hold a pattern all the same: look at the maps."
