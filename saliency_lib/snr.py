"""Signal and noise of maps over an ensemble (Woerl et al. 2023), streamed one member at a time.

mu and sigma are the mean and standard deviation of a map over members, per pixel; SNR = ||mu|| / ||sigma|| per image
(Eq. 5). The plug-in estimate is too large, since a noisy mean holds noise, E||mean||^2 = ||mu||^2 + ||sigma||^2 / n:
pure noise scores about 1 / sqrt(n). The debiased one takes that off. The noise of a map of d independent pixels has
k = d (n - 1) degrees of freedom, which makes SNR^2 another k / (k - 2) times too large (:mod:`saliency_lib.controls`).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn

from saliency_lib import attribution
from saliency_lib.estimates import Estimate, Replicates, groups
from saliency_lib.runtime import parallel
from saliency_lib.runtime.progress import progress
from saliency_lib.runtime.seeds import derive

CHUNK_VALUES = 2_000_000  # of a map, all images of a chunk together


class Moments:
    """Mean and spread of maps over members, without keeping the maps (Welford; Chan et al. for ``merge``).

    Attributes
    ----------
    n : int
        Members seen.
    mean, m2 : Tensor
        (images, c, h, w) float64: mean over members, and sum of squared deviations from it.
    """

    def __init__(self, n: int = 0, mean: Tensor | None = None):
        self.n, self.mean, self.m2 = n, torch.zeros(()) if mean is None else mean, torch.zeros(())

    def update(self, maps: Tensor) -> "Moments":
        """Add one member's maps, (images, c, h, w); ValueError for another shape, and values that are not finite."""
        if broken := int((~maps.isfinite().flatten(1).all(1)).sum()):
            raise ValueError(f"the maps of {broken} of {len(maps)} images are not finite; leave these images out")
        return self.merge(Moments(1, maps.detach().double()))

    def merge(self, other: "Moments") -> "Moments":
        """Add the members that ``other`` has seen; ``other`` stays as it is; raises ValueError as :meth:`update`."""
        if self.n and other.n and self.mean.shape != other.mean.shape:
            raise ValueError(f"maps of shape {tuple(other.mean.shape)} do not go with {tuple(self.mean.shape)}")
        if other.n:
            total, delta = self.n + other.n, other.mean - self.mean
            self.m2 = self.m2 + other.m2 + delta**2 * (self.n * other.n / total)
            self.mean, self.n = self.mean + delta * (other.n / total), total
        return self

    def without(self, part: "Moments") -> "Moments":
        """The moments of the members that are in this but not in ``part``, which must be some of them."""
        rest = Moments()
        if part.n < self.n:
            rest.n = self.n - part.n
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
    """The paper's statistic: mean over images of the plug-in SNR, as all means here without maps of zeros alone."""
    return snr(p).nanmean().item()


def paper_power(p: Powers) -> float:
    """Square of the paper's statistic less what noise adds to it, unclipped, as :func:`debiased_number` has it of a
    published one; below the mean square, :func:`power_mean`, where images differ."""
    return plugin_mean(p) ** 2 - 1 / p.n


def power_mean(p: Powers) -> float:
    """Mean over images of the unclipped squared SNR, ||mu||^2 / ||sigma||^2."""
    return (p.signal / p.noise).nanmean().item()


def rooted(power: float) -> float:
    """SNR from its square; 0 for less than no signal, and no number from none."""
    return math.sqrt(max(power, 0.0))  # in this order, no number stays none


def debiased_mean(p: Powers) -> float:
    """Without bias from few members, for ratios: root of the mean over images of unclipped squared SNR."""
    return rooted(power_mean(p))


class Measurement(Replicates[Powers]):
    """SNR of a method over an ensemble on a set of images: powers of all members, and without each group of them."""

    def plugin(self) -> Estimate:
        """:func:`plugin_mean` with its interval over members."""
        return self.estimate(plugin_mean)

    def corrected(self) -> Estimate:
        """The same less what noise adds to it, as :func:`debiased_number` has it of a published one."""
        return self.estimate(paper_power).map(rooted)

    def debiased(self) -> Estimate:
        """:func:`debiased_mean` with its interval over members; clipped at zero only after the jackknife."""
        return self.estimate(power_mean).map(rooted)

    @property
    def clipped(self) -> float:
        """Share of images whose estimate of ||mu||^2 is not positive; about a half for pure noise."""
        return (self.value.signal <= 0).double().mean().item()


def measure_maps(maps: Iterable[Tensor], n: int | None = None) -> Measurement:
    """Measurement of maps given one member at a time, each (images, c, h, w); ``n`` is for those without a length."""
    n = len(cast(Sized, maps)) if n is None else n
    if n < 2:
        raise ValueError(f"a signal-to-noise ratio needs at least two members, not {n}")
    parts = [(group, Moments()) for group in groups(n) or [list(range(n))]]
    moments_of = {k: moments for group, moments in parts for k in group}
    for k, of_member in enumerate(maps):
        moments_of.setdefault(k, Moments()).update(of_member)
    total = reduce(Moments.merge, (moments for _, moments in parts), Moments())
    if not total.n == n == len(moments_of):
        raise ValueError(f"there are not the maps of {n} members that were announced")
    left_out = [part for _, part in parts if part.n < n]
    without = tuple(powers(total.without(part)) for part in left_out)
    return Measurement(powers(total), without, tuple(part.n for part in left_out))


def measure(
    method: str | Callable[..., Tensor],
    ensemble: Sequence[nn.Module],
    images: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    executor: str = "serial",
) -> Measurement:
    """Measurement of a method over an ensemble, as many images at a time as keep the moments of the jackknife's groups
    under about half a gigabyte, so that memory does not grow with either.

    Parameters
    ----------
    ensemble : sequence of nn.Module
        ``ensemble[i]`` gives a module in eval mode; no more than three are held at a time.
    images, targets : Tensor
        (n, c, h, w) normalised, and (n,), the same classes for all members (Woerl et al.: the true labels).
    seed : int
        A stochastic method draws anew for every member, so that its own sampling counts as noise.
    executor : str
        Where members' maps are computed, a task each, as in :func:`saliency_lib.runtime.parallel.run`.
    """
    if not len(images):
        raise ValueError("there are no images to measure on")
    chunk, parts = max(1, CHUNK_VALUES // images[0].numel()), []
    chunks = torch.arange(len(images)).tensor_split(math.ceil(len(images) / chunk))
    for some in progress(chunks, "measuring SNR"):
        maps = _streamed(method, ensemble, images[some], targets[some], seed, batch_size, executor)
        parts.append(measure_maps(maps, len(ensemble)))
    return joined(parts)


def _streamed(method, ensemble, images, targets, seed: int, batch_size: int | None, executor: str) -> Iterator[Tensor]:
    """Every member's maps, in their order; a member is loaded when its turn has come."""
    images, targets = images.clone(), targets.clone()  # a slice would take all images with it to a worker

    def maps(member: tuple[int, nn.Module]) -> Tensor:
        return attribution.attribute(method, member[1], images, targets, derive(seed, member[0]), batch_size)

    return parallel.ordered(maps, enumerate(ensemble), executor, images.device.type)


def joined(parts: Sequence[Measurement]) -> Measurement:
    """One measurement of all images out of those of parts of them, by the same members."""

    def together(*parts: Powers) -> Powers:
        return Powers(parts[0].n, torch.cat([p.mean for p in parts]), torch.cat([p.noise for p in parts]))

    return Measurement(**vars(parts[0].map(together, *parts[1:])))


def member_maps(
    method: str | Callable[..., Tensor],
    ensemble: Sequence[nn.Module],
    images: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    executor: str = "serial",
) -> Tensor:
    """All members' maps, (members, n, c, h, w), computed as in :func:`measure`."""
    return torch.stack(list(_streamed(method, ensemble, images, targets, seed, batch_size, executor)))
