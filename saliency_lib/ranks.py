"""Ranks: how alike those of two measurements of the same methods are, and how much of them classes explain."""

import math
from collections.abc import Hashable, Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from saliency_lib.estimates import Estimate, Replicates


def redrawn(
    replicates: Replicates[dict[Hashable, float]], draws: int = 999, seed: int = 0
) -> dict[Hashable, np.ndarray]:
    """Numbers as other members might have given them: normal, with the covariance by the delete-a-group jackknife.

    Parameters
    ----------
    replicates : Replicates of dict
        Of several numbers, ``{name: value}``, with at least two groups of members.

    Returns
    -------
    dict
        (draws,) values by name, drawn together, so that what goes up and down together does so here.
    """
    names = list(replicates.value)
    full, left_out = (np.array([[of[name] for name in names] for of in found])
                      for found in ([replicates.value], replicates.without))  # fmt: skip
    h = sum(replicates.sizes) / np.array(replicates.sizes)[:, None]
    deviations = (h - 1) * (left_out - full)
    deviations = (deviations - (deviations / h).sum(0)) / np.sqrt((h - 1) * len(h))  # 1 / h: a group's share of members
    z = np.random.default_rng(seed).standard_normal((draws, len(h)))
    return dict(zip(names, (full + z @ deviations).T))


def spearman(a: Replicates[dict[Hashable, float]], b: Replicates[dict[Hashable, float]], seed: int = 0) -> Estimate:
    """Spearman's rank correlation over names of ``{name: value}``, measured twice of the same members.

    Ranks jump, for which a jackknife is no good: the interval is Student's with the root mean square deviation of the
    correlation when both are drawn anew (:func:`redrawn`), cut at -1 and 1. Unbounded for fewer than three members, and
    where a value is not finite.
    """

    def both(a: Mapping, b: Mapping) -> dict:
        return {(k, name): value for k, values in enumerate((a, b)) for name, value in values.items()}

    def correlation(of: Mapping) -> float:
        return float(stats.spearmanr(*([of[k, name] for name in a.value] for k in (0, 1))).statistic)

    replicates = a.map(both, b)
    value, groups, n = correlation(replicates.value), len(a.sizes), sum(a.sizes)
    each = [number for of in (replicates.value, *replicates.without) for number in of.values()]
    if groups < 2 or not np.isfinite([value, *each]).all():
        return Estimate(value, -math.inf, math.inf, n=n)
    columns = redrawn(replicates, seed=seed)
    others = [correlation(dict(zip(columns, row))) for row in zip(*columns.values())]
    half = stats.t.ppf(0.975, groups - 1) * math.sqrt(np.mean((np.array(others) - value) ** 2))
    return Estimate(value, max(value - half, -1), min(value + half, 1), groups - 1, n)


def explained(values: ArrayLike, classes: ArrayLike) -> float:
    """Share of the variance of the values' ranks, (n,), that their classes, (n,), explain; 0 on average where they tell
    nothing (eta squared of Kruskal and Wallis' H, which is an adjusted R squared of the ranks)."""
    values, classes = np.asarray(values), np.asarray(classes)
    found = [values[classes == k] for k in np.unique(classes)]
    return float((stats.kruskal(*found).statistic - len(found) + 1) / (len(values) - len(found)))


def best_of_others(values: ArrayLike) -> np.ndarray:
    """Of (options, members) values, for each member that of the option which is best for the others, (members,).

    So the best of several is taken without a look at what it is then judged on.
    """
    values = np.asarray(values, float)
    members = range(values.shape[1])
    return np.array([values[np.delete(values, k, 1).mean(1).argmax(), k] for k in members])


def chosen_apart(scores: Iterable[np.ndarray]) -> float:
    """The best of several candidates' means, each scored on (n,) images: chosen on one half of them, and taken from the
    other, so that luck does not count; the mean of both ways. Candidates that are as good as the best: the first."""
    even, odd = np.array([[each[0::2].mean(), each[1::2].mean()] for each in scores]).T
    return float((odd[even.argmax()] + even[odd.argmax()]) / 2)
