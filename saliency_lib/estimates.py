"""Numbers with their uncertainty: an estimate is a value and its 95 % interval."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


class Estimate(NamedTuple):
    """A value and the bounds of its 95 % interval, in the unit of the value."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isinf([self.low, self.high]).all():
            return f"{self.value:.3f} (no interval)"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


UNKNOWN = Estimate(float("nan"), float("-inf"), float("inf"))


def jackknife(full: float, left_out: ArrayLike, sizes: ArrayLike) -> Estimate:
    """Delete-a-group jackknife interval (Busing, Meijer and van der Leeden 1999, for groups of unequal size).

    Parameters
    ----------
    full : float
        The statistic of all members.
    left_out : array
        (g,), the statistic without each of the g groups in turn.
    sizes : array
        (g,), members per group.

    Returns
    -------
    Estimate
        ``full`` itself with a symmetric interval from Student's t with g - 1 degrees of freedom; unbounded where
        there are fewer than two groups or a value is not finite.
    """
    left_out, sizes = np.asarray(left_out, float), np.asarray(sizes, float)
    groups = len(left_out)
    if groups < 2 or not np.isfinite([full, *left_out]).all():
        return Estimate(float(full), float("-inf"), float("inf"))
    h = sizes.sum() / sizes
    corrected = groups * full - np.sum((1 - 1 / h) * left_out)
    pseudo = h * full - (h - 1) * left_out
    variance = np.mean((pseudo - corrected) ** 2 / (h - 1))
    half = stats.t.ppf(0.975, groups - 1) * np.sqrt(variance)
    return Estimate(float(full), float(full - half), float(full + half))


T = TypeVar("T")
GROUPS = 10  # at most, of the jackknife over members


def groups(n: int, most: int = GROUPS) -> list[list[int]]:
    """The members that the jackknife leaves out together, i in group i mod ``most``; none of fewer than three."""
    count = min(n, most) if n > 2 else 0
    return [list(range(k, n, count)) for k in range(count)]


@dataclass(frozen=True)
class Replicates(Generic[T]):
    """Something of all members of an ensemble, and the same without each group of them: what a jackknife needs.

    Attributes
    ----------
    value : T
        Of all members: a number, or what numbers are made of.
    without : tuple of T
        Of all members but one group, for each of :func:`groups`; empty for fewer than three members.
    sizes : tuple of int
        Members per group.
    """

    value: T
    without: tuple[T, ...]
    sizes: tuple[int, ...]

    def map(self, function: Callable[..., Any], *others: "Replicates") -> "Replicates":
        """``function(value, *values of the others)`` of all members, and without each group.

        Raises
        ------
        ValueError
            For others whose members were grouped in another way.
        """
        if odd := [other.sizes for other in others if other.sizes != self.sizes]:
            raise ValueError(f"groups of {self.sizes} members do not go with groups of {odd[0]}")
        left_out = tuple(map(function, self.without, *(other.without for other in others)))
        return Replicates(function(self.value, *(other.value for other in others)), left_out, self.sizes)

    def estimate(self, statistic: Callable[..., float] | None = None, *others: "Replicates") -> Estimate:
        """The number, or ``statistic`` as by :meth:`map`, with its 95 % interval (delete-a-group jackknife)."""
        numbers: Replicates[Any] = self.map(statistic, *others) if statistic else self
        return jackknife(numbers.value, numbers.without, numbers.sizes)


def replicates(statistic: Callable[[list[int]], T], n: int, most: int = GROUPS) -> Replicates[T]:
    """``statistic(members)`` of all ``n`` members' numbers, and of all but each group of them."""
    left_out = groups(n, most)
    kept = [[i for i in range(n) if i not in group] for group in left_out]
    return Replicates(statistic(list(range(n))), tuple(map(statistic, kept)), tuple(map(len, left_out)))


def together(parts: Mapping[Hashable, Replicates[T]]) -> Replicates[dict[Hashable, T]]:
    """Replicates of ``{name: value}`` out of ``{name: Replicates}``, of one ensemble or of several that grew alike."""
    first, *rest = parts.values()
    return first.map(lambda *values: dict(zip(parts, values)), *rest)


def over_members(statistic: Callable[..., float], *samples) -> Estimate:
    """``statistic(*samples)`` with its jackknife interval, one member left out at a time; the members are the first
    axis of every sample (arrays or tensors). Unbounded for fewer than three members."""
    n = len(samples[0])
    return replicates(lambda members: statistic(*(sample[members] for sample in samples)), n, most=n).estimate()


def bootstrap(statistic, *samples: np.ndarray, seed: int = 0, draws: int = 999) -> Estimate:
    """Percentile bootstrap of ``statistic(*samples)``; the samples are paired and resampled along their first axis."""
    rng, n = np.random.default_rng(seed), len(samples[0])
    rows = rng.integers(0, n, (draws, n))
    values = [statistic(*(sample[r] for sample in samples)) for r in rows]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Estimate(float(statistic(*samples)), float(low), float(high))


def proportion(successes: int, n: int) -> Estimate:
    """A share with its Wilson interval."""
    interval = stats.binomtest(int(successes), int(n)).proportion_ci(method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high))


def student(values) -> Estimate:
    """Mean of independent values with Student's interval; unbounded for fewer than two."""
    values = np.asarray(values, float)
    return jackknife(values.mean(), (values.sum() - values) / max(len(values) - 1, 1), np.ones(len(values)))


def spread(values) -> Estimate:
    """Standard deviation of independent, normally distributed values with its chi-square interval."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return UNKNOWN
    freedom, deviation = len(values) - 1, values.std(ddof=1)
    low, high = np.sqrt(freedom / stats.chi2.ppf([0.975, 0.025], freedom)) * deviation
    return Estimate(float(deviation), float(low), float(high))


def ratio(above: Estimate, below: Estimate) -> Estimate:
    """Quotient of two independent positive estimates, their relative errors added in quadrature on the log scale.

    Unbounded where one of them is not positive or its interval is unbounded.
    """
    if not (above.value > 0 and below.value > 0 and np.isfinite([*above, *below]).all()):
        value = above.value / below.value if below.value else float("nan")
        return Estimate(value, float("-inf"), float("inf"))
    value = above.value / below.value
    errors = [(e.high - e.low) / 2 / e.value for e in (above, below)]
    half = np.hypot(errors[0], errors[1])
    return Estimate(float(value), float(value * np.exp(-half)), float(value * np.exp(half)))


def exponential(logarithm: Estimate) -> Estimate:
    """A positive estimate from its logarithm; unbounded stays so."""
    if not np.isfinite(logarithm).all():
        return Estimate(float(np.exp(logarithm.value)), float("-inf"), float("inf"))
    return Estimate(*(float(np.exp(value)) for value in logarithm))


def loglog_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Exponent b of the least-squares fit y = a x^b; not a number for fewer than two points or values below zero."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) < 2 or not (y > 0).all():
        return float("nan")
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def number(value: float | None) -> str:
    """Three significant digits, or a dash for an unbounded value."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3g}"
