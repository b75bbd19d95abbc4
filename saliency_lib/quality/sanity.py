"""Sanity checks (Adebayo et al. 2018): is a map less like itself once the network that it explains is broken?

How much less is read against two networks that were trained alike: the *drop* is what their maps have in common, less
what is left after the break. Values are similarities of maps by :func:`saliency_lib.similarity.compare`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from torch import Tensor, nn

from saliency_lib import similarity
from saliency_lib.attribution.method import Function
from saliency_lib.estimates import Estimate, over_members, student, welch

Methods = Mapping[str, Function]


def maps_of(
    methods: Methods, networks: Sequence[nn.Module], images: Tensor, targets: Tensor, seeds: Sequence[int]
) -> dict[str, list[Tensor]]:
    """Maps (n, c, h, w) on the CPU by the name of the method, one for each network with its seed."""
    return {
        name: [method(net, images, targets, seed=seed).cpu() for net, seed in zip(networks, seeds, strict=True)]
        for name, method in methods.items()
    }


def along(
    methods: Methods,
    before: Mapping[str, Sequence[Tensor]],
    copies: Sequence[Sequence[nn.Module]],
    images: Tensor,
    targets: Tensor,
    seed: Callable[[int, int], int],
    measures: Sequence[str] = tuple(similarity.MEASURES),
) -> dict[str, dict[str, np.ndarray]]:
    """Similarity of networks' maps with those of their broken copies, (networks, steps, images) by method and measure.

    Parameters
    ----------
    before : dict
        The networks' own maps, as by :func:`maps_of`.
    copies : sequence
        Of every network its copies, step by step, as many of each.
    seed : callable
        ``seed(network, step)``, what a copy's maps are drawn from; steps are counted from 1.
    """
    found = {}
    for name, method in methods.items():
        rows: dict[str, list] = {measure: [] for measure in measures}
        for k, (own, steps) in enumerate(zip(before[name], copies, strict=True)):
            ready = similarity.Prepared(own)
            maps = [method(net, images, targets, seed=seed(k, step)).cpu() for step, net in enumerate(steps, 1)]
            alike = [similarity.compare(ready, broken, measures) for broken in maps]
            for measure, row in rows.items():
                row.append([values[measure] for values in alike])
        found[name] = {measure: np.array(row) for measure, row in rows.items()}
    return found


def _paired(values: np.ndarray) -> bool:
    return values.ndim == 3 and values.shape[1] == len(values)


def _mean(values: np.ndarray, members: np.ndarray) -> float:
    return np.nanmean(values[members][:, members] if _paired(values) else values[members])


def _over_others_too(found: Estimate, values: np.ndarray) -> Estimate:
    if values.ndim < 3 or _paired(values):
        return found
    others = over_members(np.nanmean, values.swapaxes(0, 1))
    if not (found.bounded and others.bounded):
        return Estimate(found.value, -np.inf, np.inf, n=found.n)
    error, df = welch((found.high - found.value, found.df), (others.high - others.value, others.df))
    half = error * stats.t.ppf(0.975, df)
    return Estimate(found.value, found.value - half, found.value + half, df, found.n)


def mean(values: np.ndarray) -> Estimate:
    """Mean of what every network has, (networks, images), or has in common with others, (networks, others, images),
    with its jackknife interval over networks. Without network k, the k-th of as many others is left out as well;
    where there are more or fewer, these have a jackknife of their own, and the two variances are added; there is no
    interval for fewer than three of them."""
    return _over_others_too(over_members(lambda members: _mean(values, members), np.arange(len(values))), values)


def drop(pairs: np.ndarray, left: np.ndarray, over: str = "networks") -> Estimate:
    """What two networks' maps have in common, (networks, networks, images) as by :func:`similarity.of_pairs`, less what
    is left after a break, as in :func:`mean`; with the interval over networks as there, or over ``"images"``."""
    if over == "images":
        common, kept = (np.nanmean(values.reshape(-1, values.shape[-1]), 0) for values in (pairs, left))
        return student(common - kept)
    found = over_members(lambda members: _mean(pairs, members) - _mean(left, members), np.arange(len(pairs)))
    return _over_others_too(found, left)


@dataclass(frozen=True)
class Similarity:
    """How alike maps by one method are, by one measure.

    Attributes
    ----------
    steps : array
        (networks, steps, images), of the trained network's map and its copies', as by :func:`along`.
    pairs : array
        (networks, networks, images), of two networks' maps, as by :func:`similarity.of_pairs`.
    neighbours : array
        (networks, images), of an image's map and the next image's, by the same network.
    """

    steps: np.ndarray
    pairs: np.ndarray
    neighbours: np.ndarray

    @property
    def two_networks(self) -> Estimate:
        """Mean of what two networks' maps have in common."""
        return mean(self.pairs)

    @property
    def two_images(self) -> Estimate:
        """Mean of what two images' maps have in common."""
        return mean(self.neighbours)

    def means(self) -> list[float]:
        """Similarity after each step, then, after a gap, of two networks and of two images."""
        return [*self.steps.mean((0, 2)), np.nan, self.two_networks.value, self.two_images.value]

    def after(self, step: int) -> Estimate:
        """Mean of what is left after a step, counted from 1; the last is -1."""
        return mean(self.steps[:, step - (step > 0)])

    def drop(self, step: int) -> Estimate:
        """What two networks' maps have in common, less what is left after a step."""
        return drop(self.pairs, self.steps[:, step - (step > 0)])


def measured(
    methods: Methods,
    before: Mapping[str, Sequence[Tensor]],
    copies: Sequence[Sequence[nn.Module]],
    images: Tensor,
    targets: Tensor,
    seed: Callable[[int, int], int],
    measures: Sequence[str] = tuple(similarity.MEASURES),
) -> dict[str, dict[str, Similarity]]:
    """:class:`Similarity` by method and measure; parameters as in :func:`along`."""
    steps = along(methods, before, copies, images, targets, seed, measures)
    found: dict[str, dict[str, Similarity]] = {name: {} for name in methods}
    for name, maps in before.items():
        nexts = [similarity.compare(m, m.roll(1, 0), measures) for m in maps]
        for measure in measures:
            neighbours = np.array([values[measure] for values in nexts])
            pairs = similarity.of_pairs(maps, measure)
            found[name][measure] = Similarity(steps[name][measure], pairs, neighbours)
    return found


def correspondence(one: np.ndarray, other: np.ndarray, within: bool = True) -> Estimate:
    """Correlation over methods and layers of two tests, (networks, methods, layers) each, means over networks.

    ``within`` takes each method's mean off first. The jackknife interval over networks is made on Fisher's scale.
    """

    def fisher(*tests: np.ndarray) -> float:
        a, b = (values.mean(0) - within * values.mean((0, 2))[:, None] for values in tests)
        return float(np.arctanh(np.corrcoef(a.ravel(), b.ravel())[0, 1]))

    return over_members(fisher, one, other).map(np.tanh)
