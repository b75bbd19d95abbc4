"""A method's SNR over an ensemble beside its controls: what its maps score where they can have no message in common."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from saliency_lib import snr
from saliency_lib.estimates import Replicates, replicates
from saliency_lib.runtime.seeds import derive
from saliency_lib.similarity import ssim, ssim_of_pairs, with_the_others
from saliency_lib.snr import Measurement, Powers, measure_maps

AGAIN, SHIFT = 1, 2  # what seeds are for
GROUPS = 4  # of members, whose mean maps are measured
CHUNK_VALUES = 100_000_000  # of all members' maps together; about twenty times as many bytes each are held at the peak


@dataclass(frozen=True)
class Controlled:
    """SNR of a method's maps, and of the same maps as controls; all but plain numbers can be jackknifed over members.

    Attributes
    ----------
    own : Measurement
        Of the maps as they are.
    of_means : Measurement
        Of the mean maps of disjoint groups of members, as by :func:`means_of_groups`.
    mismatched : Measurement
        Of the maps when every member is shown another image.
    shifted : Measurement
        Of the maps, each moved around the edges by a random step: their null.
    absolute, absolute_shifted : Measurement
        Of the maps' absolute values, and their null.
    level : Replicates of float
        Share of the signal's power that is the maps' mean level, the same at every pixel.
    everywhere : Replicates of float
        Share of the signal's power that is the same for every image.
    sampling : Replicates of float
        Share of the noise's power that is the method's own sampling; 0 for deterministic methods.
    likeness : Replicates of float
        SSIM of a member's map and the mean of the others' maps.
    pairs, pairs_mismatched : Replicates of float
        SSIM of two members' maps of the same image, and of different images.
    independent : Tensor
        (images,), how many independent pixels a map is worth, by :func:`independent_pixels`.
    constant : float
        Share of images whose maps are one number for all pixels: no maps.
    """

    own: Measurement
    of_means: Measurement
    mismatched: Measurement
    shifted: Measurement
    absolute: Measurement
    absolute_shifted: Measurement
    level: Replicates[float]
    everywhere: Replicates[float]
    sampling: Replicates[float]
    likeness: Replicates[float]
    pairs: Replicates[float]
    pairs_mismatched: Replicates[float]
    independent: Tensor
    constant: float

    @property
    def power(self) -> Replicates[float]:
        """Mean over images of the squared SNR, unbiased for maps of few pixels too, for ratios; unclipped."""
        return self.own.map(lambda powers: unbiased_power(powers, self.independent))

    @property
    def plugin(self) -> Replicates[float]:
        """The papers' statistic as measured, mean over images of Eq. 5."""
        return self.own.map(snr.plugin_mean)

    @property
    def corrected(self) -> Replicates[float]:
        """Square of the papers' statistic, less what noise adds to it; unclipped."""
        return self.own.map(snr.paper_power)

    @property
    def retraining(self) -> Replicates[float]:
        """The same against the noise of training alone, without the method's own sampling."""
        return self.corrected.map(lambda power, share: power / (1 - share) if share < 1 else math.nan, self.sampling)

    @property
    def apart(self) -> Replicates[float]:
        """How far two members' maps are from equal (0), where maps of different images are at 1."""
        return self.pairs.map(lambda a, b: (1 - a) / (1 - b) if b < 1 - 1e-9 else math.nan, self.pairs_mismatched)


def independent_pixels(members: Tensor) -> Tensor:
    """How many independent pixels of equal noise have noise like that of maps (members, images, ...).

    (images,) float64, at least 1; no number for two members.

    That is tr(S)^2 / tr(S^2) of the covariance S of pixels over members (Satterthwaite), both traces without bias for
    normal noise (as by Bai and Saranadasa 1996). Exactly 1 where the maps of an image are one number.
    """
    m, values = len(members) - 1, members.detach().double().flatten(2)
    values = values - values.mean(0)
    gram = torch.einsum("inp,jnp->nij", values, values) / m
    trace, square = gram.diagonal(dim1=1, dim2=2).sum(1), gram.square().sum((1, 2))
    if m < 2:
        return torch.full_like(trace, math.nan)
    of_square = (square - trace**2 / m) * m**2 / ((m - 1) * (m + 2))
    return ((trace**2 - 2 * of_square / m) / of_square).clamp(min=1)


def unbiased_power(powers: Powers, pixels: Tensor) -> float:
    """Mean over images of ||mu||^2 / ||sigma||^2, without the bias of few members and of few independent ``pixels``,
    (images,); unclipped, and no number where the mean of the ratio has none: one pixel of three members.

    A variance of k = pixels * (members - 1) degrees of freedom makes ratios k / (k - 2) times too large.
    """
    freedom = pixels * (powers.n - 1)
    share = torch.where(freedom > 2 + 1e-6, 1 - 2 / freedom, torch.nan)
    return (powers.mean / powers.noise * share - 1 / powers.n).nanmean().item()


def inflation(pixels: float, members: int) -> float:
    """How many times too large Eq. 5 comes out for few independent pixels: E[1 / s] of a deviation with
    k = pixels * (members - 1) degrees of freedom; 1.38 for one pixel of four members, no number for one of two."""
    k = pixels * (members - 1)
    return math.sqrt(k / 2) * math.exp(math.lgamma((k - 1) / 2) - math.lgamma(k / 2)) if k > 1 else math.nan


def means_of_groups(members: Tensor) -> Tensor:
    """Mean maps of ``GROUPS`` or more disjoint groups of members, as large as can be, (groups, images, ...)."""
    size = max(1, len(members) // GROUPS)
    count = len(members) // size
    return members[: count * size].unflatten(0, (count, size)).mean(1)


def mismatch(members: Tensor) -> Tensor:
    """Maps (members, images, ...) where member i's images are moved on by i, so that no two members see the same."""
    if members.shape[1] < len(members):
        raise ValueError(f"{len(members)} members need as many different images, not {members.shape[1]}")
    return torch.stack([maps.roll(-i, 0) for i, maps in enumerate(members)])


def shift(members: Tensor, seed: int) -> Tensor:
    """Maps (members, images, c, h, w), each moved around the edges by a random number of rows and columns."""
    generator, (h, w) = torch.Generator().manual_seed(seed), members.shape[-2:]
    shape = members.shape[:2]
    rows = (torch.arange(h) + torch.randint(h, (*shape, 1), generator=generator)) % h
    columns = (torch.arange(w) + torch.randint(w, (*shape, 1), generator=generator)) % w
    rows, columns = rows[:, :, None, :, None].to(members.device), columns[:, :, None, None, :].to(members.device)
    moved = members.gather(3, rows.expand(members.shape))
    return moved.gather(4, columns.expand(members.shape))


def measure(
    method: str | Callable[..., Tensor],
    ensemble: Sequence[nn.Module],
    images: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    resample: bool = False,
    executor: str = "serial",
) -> Controlled:
    """A method's SNR and its controls, as many images at a time as leave their maps room in memory.

    Parameters
    ----------
    ensemble : sequence of nn.Module
        ``ensemble[i]`` gives a module in eval mode.
    images, targets : Tensor
        (n, c, h, w) normalised, at least as many as members, and (n,), the same classes for all members.
    seed : int
        A stochastic method draws anew for every member, so that its own sampling counts as noise.
    resample : bool
        Take all maps a second time from other seeds, to tell the method's own sampling from training.
    executor : str
        Where members' maps are computed, a task each, as in :func:`saliency_lib.runtime.parallel.run`.
    """
    if len(ensemble) < 2:
        raise ValueError(f"a signal-to-noise ratio needs at least two members, not {len(ensemble)}")
    if len(images) < len(ensemble):
        raise ValueError(f"{len(ensemble)} members need as many different images, not {len(images)}")
    chunk = max(len(ensemble), CHUNK_VALUES // (len(ensemble) * images[0].numel()))
    count = max(1, len(images) // chunk)  # each chunk at least as large, so that it has an image for every member
    chunks, parts = torch.arange(len(images)).tensor_split(count), []
    where: dict[str, Any] = {"batch_size": batch_size, "executor": executor}
    for rows in chunks:
        seeds = [seed, derive(seed, AGAIN)] if resample else [seed]
        drawn = (snr.member_maps(method, ensemble, images[rows], targets[rows], seed=s, **where) for s in seeds)
        parts.append(of_maps(*drawn, seed=derive(seed, SHIFT, int(rows[0]))))
    return _joined(parts, [len(rows) for rows in chunks])


def of_maps(maps: Tensor, again: Tensor | None = None, *, seed: int = 0) -> Controlled:
    """Of maps, (members, images, c, h, w), and of the same drawn once more; ``seed`` is of the shifts."""
    n, own, moved = len(maps), measure_maps(maps), shift(maps, seed)
    sampling = (maps - (maps if again is None else again)).double().square().flatten(2).sum(2) / 2  # members, images
    sampled = replicates(lambda members: sampling[members].mean(0), n)
    shares = replicates(lambda members: _signal_shares(maps[members]), n)
    return Controlled(
        own,
        measure_maps(means_of_groups(maps)),
        measure_maps(mismatch(maps)),
        measure_maps(moved),
        measure_maps(maps.abs()),
        measure_maps(moved.abs()),
        shares.map(itemgetter(0)),
        shares.map(itemgetter(1)),
        own.map(lambda powers, share: (share / powers.noise).nanmean().item(), sampled),
        replicates(lambda members: with_the_others(ssim, maps[members]).mean().item(), n),
        replicates(partial(_of_pairs, ssim_of_pairs(maps)), n),
        replicates(partial(_of_pairs, ssim_of_pairs(maps, 1)), n),
        independent_pixels(maps),
        (maps.amax((-2, -1)) == maps.amin((-2, -1))).all(-1).all(0).double().mean().item(),
    )


def _signal_shares(maps: Tensor) -> tuple[float, float]:
    """Shares of the signal's power that are one level for all pixels, and one map for all images. Images weigh by one
    over their noise; only products of different members count. Too small where a map has few independent pixels."""
    noise = maps.double().flatten(2).var(0).sum(1)
    scaled = (maps.double() / noise.sqrt().view(1, -1, 1, 1, 1)).nan_to_num_(0.0)  # 0 / 0 of a silent image

    def products(m: Tensor) -> float:  # mean over pairs of different members of their inner product
        total = m.sum(0)
        return ((total * total).sum() - (m * m).sum()).item() / (len(m) * (len(m) - 1))

    same = products(scaled)
    pixels, images = scaled[0, 0, 0].numel(), scaled.shape[1]
    level = products(scaled.mean((-2, -1))) * pixels
    across = (products(scaled.sum(1)) - same) / (images - 1) if images > 1 else math.nan
    return (level / same, across / same) if same > 0 else (math.nan, math.nan)


def _of_pairs(matrix: Tensor, members: list[int]) -> float:
    """Mean over pairs of different members."""
    part = matrix[members][:, members]
    return ((part.sum() - part.trace()) / (len(members) * (len(members) - 1))).item()


def _joined(parts: list[Controlled], weights: list[int]) -> Controlled:
    """All images' out of those of parts of so many images each."""

    def mean(*values: float) -> float:
        return sum(weight * value for weight, value in zip(weights, values)) / sum(weights)

    def join(first, *rest):
        if isinstance(first, Measurement):
            return snr.joined([first, *rest])
        if isinstance(first, Tensor):
            return torch.cat([first, *rest])
        return first.map(mean, *rest) if isinstance(first, Replicates) else mean(first, *rest)

    return Controlled(*map(join, *(vars(part).values() for part in parts)))
