"""Signal and noise of maps over an ensemble (Woerl et al. 2023), streamed one member at a time.

mu and sigma are the mean and standard deviation of a map over members, per pixel; SNR = ||mu|| / ||sigma|| per image
(Eq. 5). The plug-in estimate is biased upwards, since the norm of a noisy mean holds noise too:
E||mean||^2 = ||mu||^2 + ||sigma||^2 / n, so that pure noise scores about 1 / sqrt(n). The debiased one takes that off.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from saliency_lib import attribution
from saliency_lib.estimates import Estimate, jackknife
from saliency_lib.runtime import executors
from saliency_lib.runtime.progress import progress
from saliency_lib.runtime.seeds import derive

GROUPS = 10  # at most, of the jackknife over members
TOO_FEW = "a signal-to-noise ratio needs at least two members, not {}"
CHUNK_VALUES = 16_000_000  # of a map, all images of a chunk together


class Moments:
    """Mean and spread of maps over members, without keeping the maps (Welford; Chan et al. for ``merge``).

    Attributes
    ----------
    n : int
        Members seen.
    mean, m2 : Tensor
        (images, c, h, w) float64: mean over members, and sum of squared deviations from it.
    """

    def __init__(self):
        self.n, self.mean, self.m2 = 0, None, None

    def update(self, maps: Tensor) -> "Moments":
        """Add one member's maps, (images, c, h, w); raises ValueError if the shape differs from the others'."""
        if self.mean is not None and maps.shape != self.mean.shape:
            raise ValueError(f"maps of shape {tuple(maps.shape)} do not go with those of {tuple(self.mean.shape)}")
        maps = maps.detach().double()
        if self.mean is None:
            self.mean, self.m2 = torch.zeros_like(maps), torch.zeros_like(maps)
        self.n += 1
        delta = maps - self.mean
        self.mean += delta / self.n
        self.m2.addcmul_(delta, maps - self.mean)
        return self

    def merge(self, other: "Moments") -> "Moments":
        """Add the members that ``other`` has seen; ``other`` stays as it is."""
        if other.n == 0:
            return self
        if self.n == 0:
            self.n, self.mean, self.m2 = other.n, other.mean.clone(), other.m2.clone()
            return self
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"moments of shape {tuple(other.mean.shape)} do not go with {tuple(self.mean.shape)}")
        total, delta = self.n + other.n, other.mean - self.mean
        self.m2 += other.m2 + delta**2 * (self.n * other.n / total)
        self.mean += delta * (other.n / total)
        self.n = total
        return self

    def without(self, part: "Moments") -> "Moments":
        """The moments of the members that are in this but not in ``part``, which must be some of them."""
        if part.n == 0:
            return Moments().merge(self)
        rest = Moments()
        rest.n = self.n - part.n
        if rest.n == 0:
            return rest
        rest.mean = (self.mean * self.n - part.mean * part.n) / rest.n
        delta = part.mean - rest.mean
        rest.m2 = (self.m2 - part.m2 - delta**2 * (part.n * rest.n / self.n)).clamp(min=0)
        return rest

    @property
    def variance(self) -> Tensor:
        """Unbiased variance per pixel, (images, c, h, w)."""
        if self.n < 2:
            raise ValueError(f"a spread needs at least two members, not {self.n}")
        return self.m2 / (self.n - 1)


@dataclass(frozen=True)
class Powers:
    """Squared norms per image, all that an SNR needs.

    Attributes
    ----------
    n : int
        Members.
    mean : Tensor
        (images,), ||mean map||^2, which holds signal and 1/n of the noise.
    noise : Tensor
        (images,), ||sigma||^2, unbiased.
    """

    n: int
    mean: Tensor
    noise: Tensor

    @property
    def signal(self) -> Tensor:
        """||mu||^2 per image, (images,), unbiased; negative where there is less than no signal."""
        return self.mean - self.noise / self.n


def powers(moments: Moments) -> Powers:
    """The squared norms of ``moments``."""
    return Powers(moments.n, moments.mean.square().flatten(1).sum(1), moments.variance.flatten(1).sum(1))


def snr(moments: Moments | Powers) -> Tensor:
    """Plug-in SNR of Eq. 5, (images,), a ratio: ||mean|| / ||sigma||; about 1 / sqrt(n) for pure noise.

    Infinite where the members agree exactly, not a number where all maps are zero.
    """
    p = powers(moments) if isinstance(moments, Moments) else moments
    return (p.mean / p.noise).sqrt()


def snr_debiased(moments: Moments | Powers) -> Tensor:
    """SNR with the noise in the mean's norm taken off, (images,); 0 where nothing is left of the signal."""
    p = powers(moments) if isinstance(moments, Moments) else moments
    return (p.signal / p.noise).clamp(min=0).sqrt()


def debiased_number(plugin: float, n: int) -> float:
    """A published plug-in SNR of ``n`` networks less what pure noise adds to it: sqrt(plugin^2 - 1/n); 0 from less."""
    return rooted(plugin**2 - 1 / n)


def members_needed(snr1: float, goal: float) -> int:
    """Members to average for the mean map to reach an SNR of ``goal``, when one map has ``snr1`` (law of sqrt(n))."""
    if not snr1 > 0:
        raise ValueError(f"a map with an SNR of {snr1} never reaches {goal}, however many are averaged")
    return max(1, math.ceil((goal / snr1) ** 2 - 1e-9))


def plugin_mean(p: Powers) -> float:
    """The statistic of the paper's tables: mean over images of the plug-in SNR.

    Like all means here it leaves out images whose maps are zero in all networks; without others it is no number.
    """
    return snr(p).nanmean().item()


def power_mean(p: Powers) -> float:
    """Mean over images of the unclipped squared SNR, ||mu||^2 / ||sigma||^2."""
    return (p.signal / p.noise).nanmean().item()


def rooted(power: float) -> float:
    """SNR from its square; 0 for less than no signal, and no number from none."""
    return math.sqrt(max(power, 0.0))  # in this order, no number stays none


def debiased_mean(p: Powers) -> float:
    """The table statistic without bias from few members: root of the mean over images of unclipped squared SNR."""
    return rooted(power_mean(p))


def root(power: Estimate) -> Estimate:
    """SNR with its interval from its square, clipped at zero only now; unbounded stays so."""
    if not all(map(math.isfinite, power)):
        return Estimate(rooted(power.value), -math.inf, math.inf)
    return Estimate(*(rooted(end) for end in power))


@dataclass(frozen=True)
class Measurement:
    """SNR of a method over an ensemble on a set of images, with what the jackknife over members needs.

    Attributes
    ----------
    all : Powers
        Of all members.
    without : tuple of Powers
        Of all members but one group, for each group.
    sizes : tuple of int
        Members per group.
    """

    all: Powers
    without: tuple[Powers, ...]
    sizes: tuple[int, ...]

    def estimate(self, statistic: Callable[[Powers], float]) -> Estimate:
        """``statistic`` of all members with its 95 % interval over members (delete-a-group jackknife)."""
        return jackknife(statistic(self.all), [statistic(p) for p in self.without], self.sizes)

    def power_ratio(self) -> Estimate:
        """Mean over images of the unclipped squared SNR, ||mu||^2 / ||sigma||^2, with its interval over members."""
        return self.estimate(power_mean)

    def debiased(self) -> Estimate:
        """:func:`debiased_mean` with its interval over members; clipped at zero only after the jackknife."""
        ratio = self.power_ratio()
        return root(ratio)

    @property
    def clipped(self) -> float:
        """Share of images whose estimate of ||mu||^2 is not positive; about a half for pure noise."""
        return (self.all.signal <= 0).double().mean().item()


def measure_maps(maps: Sequence[Tensor] | Tensor) -> Measurement:
    """Measurement of maps given one member at a time, each (images, c, h, w); any iterable of known length."""
    n = len(maps)
    if n < 2:
        raise ValueError(TOO_FEW.format(n))
    groups = [Moments() for _ in range(min(n, GROUPS))]
    for i, member in enumerate(maps):
        groups[i % len(groups)].update(member)
    return _measurement(groups)


def _measurement(groups: list[Moments]) -> Measurement:
    total = Moments()
    for group in groups:
        total.merge(group)
    enough = [group for group in groups if total.n - group.n > 1]
    return Measurement(
        powers(total), tuple(powers(total.without(group)) for group in enough), tuple(group.n for group in enough)
    )


def measure(
    method: str | Callable[..., Tensor],
    ensemble: Sequence[nn.Module],
    images: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    chunk: int | None = None,
    executor: str = "serial",
) -> Measurement:
    """Measurement of a method over an ensemble, ``chunk`` images at a time, so that memory does not grow with either.

    Parameters
    ----------
    ensemble : sequence of nn.Module
        ``ensemble[i]`` gives a module in eval mode; it is dropped before the next is asked for.
    images, targets : Tensor
        (n, c, h, w) normalised, and (n,), the same classes for all members (Woerl et al.: the true labels).
    chunk : int, optional
        Default: as many as keep the moments of the jackknife's groups under about three gigabytes.
    seed : int
        A stochastic method draws anew for every member, so that its own sampling counts as noise.
    executor : str
        Where members' maps are computed and merged, a task each, as in :func:`saliency_lib.runtime.executors.get`.
    """
    if len(ensemble) < 2:
        raise ValueError(TOO_FEW.format(len(ensemble)))
    execute, groups = executors.get(executor), min(len(ensemble), GROUPS)
    branches = [list(range(group, len(ensemble), groups)) for group in range(groups)]
    chunk = chunk or max(1, CHUNK_VALUES // images[0].numel())
    parts = []
    for start in progress(range(0, len(images), chunk), "measuring SNR"):
        rows = slice(start, start + chunk)
        part = images[rows].clone(), targets[rows].clone()  # a slice would take all images with it to a worker
        maps = _Maps(method, ensemble, *part, seed, batch_size)
        parts.append(execute.reduce(partial(_moments, maps), branches, _merged, _measurement, images.device.type))
    return joined(parts)


def _moments(maps: "_Maps", member: int) -> Moments:
    return Moments().update(maps[member])


def _merged(one: Moments, other: Moments) -> Moments:
    return Moments().merge(one).merge(other)


def joined(parts: Sequence[Measurement]) -> Measurement:
    """One measurement of all images out of those of parts of them, by the same members."""

    def together(powers: Sequence[Powers]) -> Powers:
        return Powers(powers[0].n, torch.cat([p.mean for p in powers]), torch.cat([p.noise for p in powers]))

    without = tuple(together(group) for group in zip(*(part.without for part in parts)))
    return Measurement(together([part.all for part in parts]), without, parts[0].sizes)


class _Maps(Sequence):
    """One member's maps at a time, computed when asked for."""

    def __init__(self, method, ensemble, images, targets, seed, batch_size):
        self.method, self.ensemble, self.images, self.targets = method, ensemble, images, targets
        self.seed, self.batch_size = seed, batch_size

    def __len__(self) -> int:
        return len(self.ensemble)

    def __getitem__(self, member: int) -> Tensor:
        if member >= len(self):
            raise IndexError(member)
        model, seed = self.ensemble[member], derive(self.seed, member)
        return attribution.attribute(self.method, model, self.images, self.targets, seed, self.batch_size)


def member_maps(
    method: str | Callable[..., Tensor],
    ensemble: Sequence[nn.Module],
    images: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    batch_size: int | None = None,
) -> Tensor:
    """All members' maps, (members, n, c, h, w); a stochastic method draws anew for every member."""
    return torch.stack(list(_Maps(method, ensemble, images, targets, seed, batch_size)))


def mean_map_powers(maps: Tensor, size: int) -> Powers:
    """Powers of the mean map of ``size`` members, from disjoint groups of them.

    Parameters
    ----------
    maps : Tensor
        (members, images, c, h, w); the first ``members // size`` groups of consecutive members are used.
    """
    groups = len(maps) // size
    if groups < 2:
        raise ValueError(f"{len(maps)} members give {groups} disjoint groups of {size}; two are needed")
    moments = Moments()
    for group in maps[: groups * size].split(size):
        moments.update(group.mean(0))
    return powers(moments)
