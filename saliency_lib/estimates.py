"""Numbers with their uncertainty: an estimate is a value and its 95 % interval."""

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


class _Interval(NamedTuple):
    value: float
    low: float
    high: float


class Estimate(_Interval):
    """A value and the bounds of its 95 % interval, in the unit of the value; unpacks as these three.

    ``df`` are the degrees of freedom behind the interval, infinite where it is normal or resampled; ``n`` counts the
    networks, images or whatever it is over, 0 where that is not known; ``scale`` is ``"log"`` where the interval was
    made of logarithms, on whose scale p values and numbers needed are then reckoned.
    """

    df: float
    n: int
    scale: str

    def __new__(
        cls, value: float, low: float, high: float, df: float = math.inf, n: int = 0, scale: str = ""
    ) -> "Estimate":
        self = tuple.__new__(cls, (float(value), float(low), float(high)))
        self.df, self.n, self.scale = float(df), int(n), scale
        return self

    @property
    def bounded(self) -> bool:
        """Whether value and interval are finite."""
        return all(map(math.isfinite, self))

    def map(self, function: Callable[[float], float]) -> "Estimate":
        """A monotone function of it, with the function's own interval; unbounded stays so."""
        ends = sorted((function(self.low), function(self.high))) if self.bounded else (-math.inf, math.inf)
        return Estimate(function(self.value), ends[0], ends[1], self.df, self.n, "log" if function is np.exp else "")

    def outside(self, low: float = -math.inf, high: float = math.inf) -> float:
        """Two-sided p value of a truth at the nearest end of [low, high]: below 0.05 if the interval lies outside; 1 if
        the value lies inside, or has no interval."""
        if not self.bounded or low <= self.value <= high:
            return 1.0
        if self.scale == "log":
            return self.map(math.log).outside(_log(low), _log(high))
        if self.value > high:
            return two_sided(self.value - high, self.value - self.low, self.df)
        return two_sided(low - self.value, self.high - self.value, self.df)

    def _replace(self, **changes: float) -> "Estimate":
        return Estimate(*super()._replace(**changes), self.df, self.n, self.scale)

    def in_full(self) -> dict[str, float]:
        """Value and bounds by name, and ``df``, ``n`` and ``scale`` where there is something to say."""
        more = {"df": self.df if math.isfinite(self.df) else 0, "n": self.n, "scale": self.scale}
        return self._asdict() | {name: value for name, value in more.items() if value}

    def needed(self, low: float = -math.inf, high: float = math.inf) -> int | None:
        """How many of what it is over would put the interval to one side of both bounds if the value stays, by the law
        of 1 / sqrt(n) and, unless they were left out in groups, Student's t; None where that is not known."""
        if self.scale == "log" and self.bounded:
            return self.map(math.log).needed(_log(low), _log(high))
        bounds = [bound for bound in (low, high) if math.isfinite(bound)]
        if not self.bounded or not self.n or not bounds or self.value in bounds:
            return None
        halves = [self.high - self.value if b > self.value else self.value - self.low for b in bounds]
        share = max(half / abs(bound - self.value) for half, bound in zip(halves, bounds))
        most = math.ceil(self.n * share**2)
        if self.df != self.n - 1 or not self.n < most <= 10_000:
            return most
        wide = stats.t.ppf(0.975, (more := np.arange(self.n, most + 1)) - 1) / np.sqrt(more)
        return int(more[wide <= wide[0] / share][0])

    def __str__(self) -> str:
        if np.isinf([self.low, self.high]).all():
            return f"{self.value:.3f} (no interval)"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


UNKNOWN = Estimate(math.nan, -math.inf, math.inf)


def two_sided(distance: float, half: float, df: float = math.inf) -> float:
    """p value of a distance where 95 % of chance lies within ``half``: Student's t, or normal for infinite ``df``."""
    law = stats.t(df) if math.isfinite(df) else stats.norm()
    return float(2 * law.sf(law.ppf(0.975) * distance / half)) if half > 0 else float(distance == 0)


def welch(*errors: tuple[float, float]) -> tuple[float, float]:
    """Standard error of a sum of independent estimates, (half the 95 % interval, df) each, and its df (Welch's)."""
    parts = [((half / stats.t.ppf(0.975, df)) ** 2, df) for half, df in errors]
    total, spread = sum(square for square, _ in parts), sum(square**2 / df for square, df in parts)
    return math.sqrt(total), total**2 / spread if spread else math.inf


def exact(value: float) -> Estimate:
    """What chance has no part in."""
    return Estimate(value, value, value)


def jackknife(full: float, left_out: ArrayLike, sizes: ArrayLike) -> Estimate:
    """Delete-a-group jackknife interval (Busing, Meijer and van der Leeden 1999, for groups of unequal size).

    Of a statistic of all members, ``full``; the same without each of the groups in turn, ``left_out`` (g,); and members
    per group, ``sizes`` (g,). The interval is symmetric, from Student's t with g - 1 degrees of freedom; unbounded
    for fewer than two groups, and where a value is not finite.
    """
    left_out, sizes = np.asarray(left_out, float), np.asarray(sizes, float)
    groups = len(left_out)
    if groups < 2 or not np.isfinite([full, *left_out]).all():
        return Estimate(full, -math.inf, math.inf, n=int(sizes.sum()))
    h = sizes.sum() / sizes
    corrected = groups * full - np.sum((1 - 1 / h) * left_out)
    pseudo = h * full - (h - 1) * left_out
    variance = np.mean((pseudo - corrected) ** 2 / (h - 1))
    half = stats.t.ppf(0.975, groups - 1) * np.sqrt(variance)
    return Estimate(full, full - half, full + half, groups - 1, int(sizes.sum()))


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
    return replicates(lambda members: float(statistic(*(sample[members] for sample in samples))), n, most=n).estimate()


def over_pairs(statistic: Callable[..., float], matrix) -> Estimate:
    """``statistic`` of a symmetric matrix's entries for two different members, (..., pairs) of (..., members, members),
    with its jackknife interval, one member left out at a time."""
    n = matrix.shape[-1]

    def of(members: list[int]) -> float:
        one, other = np.array(list(combinations(members, 2))).T
        return float(statistic(matrix[..., one, other]))

    return replicates(of, n, most=n).estimate()


def proportion(successes: int, n: int) -> Estimate:
    """A share with its Wilson interval."""
    interval = stats.binomtest(int(successes), int(n)).proportion_ci(method="wilson")
    return Estimate(successes / n, interval.low, interval.high, n=n)


def student(values) -> Estimate:
    """Mean of independent values with Student's interval; unbounded for fewer than two."""
    values = np.asarray(values, float)
    return jackknife(values.mean(), (values.sum() - values) / max(len(values) - 1, 1), np.ones(len(values)))


def over_rows(table):
    """Of a pandas series with a number per network, :func:`student`; of one of estimates, these by its keys, joined by
    commas where they are several; of a table, each column's by its name."""
    if table.ndim == 2:
        return {name: over_rows(column) for name, column in table.items()}
    if not isinstance(table.iloc[0], Estimate):
        return student(table)
    return {", ".join(map(str, key)) if isinstance(key, tuple) else key: value for key, value in table.items()}


def spread(values) -> Estimate:
    """Standard deviation of independent, normally distributed values with its chi-square interval."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return UNKNOWN
    freedom, deviation = len(values) - 1, values.std(ddof=1)
    low, high = np.sqrt(freedom / stats.chi2.ppf([0.975, 0.025], freedom)) * deviation
    return Estimate(deviation, low, high, freedom, len(values))


def ratio(above: Estimate, below: Estimate) -> Estimate:
    """Quotient of two independent positive estimates, their relative errors added in quadrature on the log scale.

    Unbounded where the interval of one of them is, or reaches zero.
    """
    value = above.value / below.value if below.value else math.nan
    if not (min(above.low, below.low) > 0 and above.bounded and below.bounded):
        return Estimate(value, -math.inf, math.inf)
    errors = [(e.high - e.low) / 2 / e.value for e in (above, below)]
    half = np.hypot(errors[0], errors[1])
    least = min(above.df, below.df), min(above.n, below.n)
    return Estimate(value, value * np.exp(-half), value * np.exp(half), *least, "log")
