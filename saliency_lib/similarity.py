"""How alike two maps are, one value per image: rank correlation, structural similarity, correlation of gradients' HOG.

As Adebayo et al. 2018 describe them: Spearman on the maps as they are; SSIM and HOG after each map is divided by its
largest absolute value. Maps are (n, c, h, w); all channels take part.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from skimage import feature
from torch import Tensor
from torch.nn import functional as F

from saliency_lib.channels import abs_sum, finite, total


def unit(maps: Tensor) -> Tensor:
    """Each map divided by its largest absolute value, so that it lies in [-1, 1] and zero stays zero."""
    return maps / maps.abs().flatten(1).amax(1).clamp(min=torch.finfo(maps.dtype).tiny).view(-1, 1, 1, 1)


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Correlation of values, (n,) float64, from a and b (n, ...); not a number for constant maps."""
    a, b = (m.detach().double().flatten(1) for m in (a, b))
    varied = _varies(a) & _varies(b)
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    found = (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()
    return torch.where(varied, found, torch.nan)  # what rounding leaves of a constant is no correlation


def _varies(maps: Tensor) -> Tensor:
    """Whether each map has more than one value, (n,) bool."""
    flat = maps.flatten(1)
    return flat.amax(1) > flat.amin(1)


def _same_shape(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.ndim != 4:
        raise ValueError(f"expected two sets of maps (n, c, h, w), not {tuple(a.shape)} and {tuple(b.shape)}")


def spearman(a: Tensor, b: Tensor, absolute: bool = False) -> Tensor:
    """Spearman's rank correlation, (n,) float64, ties by mean rank; ``absolute`` ranks absolute values."""
    _same_shape(a, b)
    return pearson(*(_ranks(m.abs() if absolute else m) for m in (a, b)))


def _ranks(maps: Tensor) -> Tensor:
    return torch.from_numpy(rankdata(maps.detach().cpu().flatten(1).numpy(), axis=1))


def ssim(a: Tensor, b: Tensor, data_range: float = 2.0, win_size: int = 5, normalise: bool = True) -> Tensor:
    """Structural similarity, (n,) float64, with a flat window, mean over channels (Wang et al. 2004).

    Equal to scikit-image's, all maps at once.

    Parameters
    ----------
    data_range : float
        Of the values; 2 for maps in [-1, 1].
    win_size : int
        Side of the window in pixels, odd.
    normalise : bool
        Divide each map by its largest absolute value first.
    """
    _same_shape(a, b)
    a, b = (_Windows(unit(m.detach().double()) if normalise else m.detach().double(), win_size) for m in (a, b))
    return _ssim(a, b, data_range)


class _Windows:
    """Maps with their windows' means and variances, to be compared with others more than once."""

    def __init__(self, maps: Tensor, win_size: int = 5):
        if win_size % 2 == 0 or not 3 <= win_size <= min(maps.shape[-2:]):
            raise ValueError(f"the window must be odd, and 3 to {min(maps.shape[-2:])} pixels wide, not {win_size}")
        self.maps, self.win_size, self.unbiased = maps, win_size, win_size**2 / (win_size**2 - 1)
        self.mean = self.pooled(maps)
        self.variance = self.unbiased * (self.pooled(maps * maps) - self.mean**2)

    def pooled(self, values: Tensor) -> Tensor:
        return F.avg_pool2d(F.avg_pool2d(values, (self.win_size, 1), stride=1), (1, self.win_size), stride=1)


def _ssim(a: _Windows, b: _Windows, data_range: float = 2.0) -> Tensor:
    covariance = a.unbiased * (a.pooled(a.maps * b.maps) - a.mean * b.mean)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    above = (2 * a.mean * b.mean + c1) * (2 * covariance + c2)
    return (above / ((a.mean**2 + b.mean**2 + c1) * (a.variance + b.variance + c2))).flatten(1).mean(1)


def ssim_of_pairs(members: Tensor, step: int = 0) -> Tensor:
    """Mean over images of :func:`ssim` of every two members' maps (members, images, c, h, w): (members, members).

    With ``step``, each map is compared with that of the image ``step`` further on.
    """
    scaled = [unit(maps.detach().double()) for maps in members]
    windows = [_Windows(maps) for maps in scaled]
    moved = [_Windows(maps.roll(-step, 0)) for maps in scaled] if step else windows
    matrix = torch.ones(len(members), len(members), dtype=torch.float64)
    for i in range(len(members)):
        for j in range(i):
            matrix[i, j] = matrix[j, i] = _ssim(windows[i], moved[j]).mean()
    return matrix


def hog_cell(size: int) -> int:
    """Side of HOG's cells for maps of ``size`` pixels: 16 as in the paper from 128 on, 8 from 64 on, else 4."""
    return 16 if size >= 128 else 8 if size >= 64 else 4


def hog(a: Tensor, b: Tensor, cell: int | None = None) -> Tensor:
    """Pearson correlation of the maps' histograms of oriented gradients, (n,) float64, by scikit-image (Dalal 2005).

    Nine orientations, blocks of 3x3 cells; where maps have channels, the one with the largest gradient counts.

    Parameters
    ----------
    cell : int, optional
        Side of a cell in pixels; default: by :func:`hog_cell`.
    """
    _same_shape(a, b)
    return pearson(_histograms(a, cell), _histograms(b, cell))


def _histograms(maps: Tensor, cell: int | None = None) -> Tensor:
    side = min(maps.shape[-2:])
    cell = hog_cell(side) if cell is None else cell
    if cell < 1 or 3 * cell > side:
        advice = f"use cell={side // 3} or less" if side >= 3 else "take larger maps"
        raise ValueError(f"maps of {side} pixels have no 3x3 cells of {cell} pixels; {advice}")
    cells = {"pixels_per_cell": (cell, cell), "channel_axis": 0}
    return torch.from_numpy(np.stack([feature.hog(v, **cells) for v in unit(maps.detach().double()).cpu().numpy()]))


@dataclass(frozen=True)
class Measure:
    """Likeness of maps (n, c, h, w), ``measure(a, b)``, (n,) float64, by what ``prepare`` makes of them once channels
    are reduced."""

    reduce: Callable[[Tensor], Tensor]
    prepare: Callable[[Tensor], Any]
    alike: Callable[[Any, Any], Tensor]

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        _same_shape(a, b)
        return self.alike(self.prepare(self.reduce(a)), self.prepare(self.reduce(b)))


def _unit_windows(maps: Tensor) -> _Windows:
    return _Windows(unit(maps.detach().double()))


MEASURES = {  # the four of Adebayo et al. 2018 with their channel reductions: of maps (n, c, h, w), one value per image
    "rank correlation": Measure(total, _ranks, pearson),
    "absolute rank correlation": Measure(abs_sum, _ranks, pearson),
    "SSIM": Measure(total, _unit_windows, _ssim),
    "HOG": Measure(total, _histograms, pearson),
}


@dataclass
class Prepared:
    """Maps (n, c, h, w) that are compared more than once: what a measure needs of them is made once and kept."""

    maps: Tensor
    made: dict[str, tuple[Any, Tensor]] = field(default_factory=dict)

    def by(self, measure: str) -> tuple[Any, Tensor]:
        """What the measure compares, and whether each map varies, (n,) bool on the CPU."""
        if measure not in self.made:
            reduced = MEASURES[measure].reduce(finite(self.maps))
            self.made[measure] = MEASURES[measure].prepare(reduced), _varies(reduced).cpu()
        return self.made[measure]


def compare(
    a: Tensor | Prepared, b: Tensor | Prepared, measures: Sequence[str] = tuple(MEASURES)
) -> dict[str, np.ndarray]:
    """Similarity of maps (n, c, h, w) by some of ``MEASURES``, (n,) float64 each; a map without variation is like none,
    which counts as 0. Maps that are compared with many are better :class:`Prepared`.

    Raises
    ------
    ValueError
        For an unknown measure, or maps with values that are not finite.
    """
    if unknown := [name for name in measures if name not in MEASURES]:
        raise ValueError(f"unknown measure {unknown[0]!r}; some of {sorted(MEASURES)}, as a list")
    first, second = (m if isinstance(m, Prepared) else Prepared(m) for m in (a, b))
    _same_shape(first.maps, second.maps)
    found = {}
    for name in measures:
        (a, of_a), (b, of_b) = first.by(name), second.by(name)
        values = MEASURES[name].alike(a, b).cpu().nan_to_num(0)
        found[name] = torch.where(of_a & of_b, values, 0).numpy()
    return found


def of_pairs(members: Sequence[Tensor], measure: str, others: Sequence[Tensor] | None = None) -> np.ndarray:
    """:func:`compare` of every member's maps with every other's: (members, others, images).

    Without ``others``, of every two members: (members, members, images), not a number for a member with itself.
    """
    first = [Prepared(maps) for maps in members]
    if others is not None:
        second = [Prepared(maps) for maps in others]
        return np.array([[compare(a, b, [measure])[measure] for b in second] for a in first])
    n = len(first)
    found = np.full((n, n, len(members[0])), np.nan)
    for i in range(n):
        for j in range(i):
            found[i, j] = found[j, i] = compare(first[i], first[j], [measure])[measure]
    return found


def with_the_others(measure, members: Tensor) -> Tensor:
    """``measure(map, mean of the other members' maps)`` per member and image, (members, images), for maps
    (members, images, c, h, w)."""
    if len(members) < 2:
        raise ValueError(f"others need at least two members, not {len(members)}")
    total = members.sum(0)
    return torch.stack([measure(own, (total - own) / (len(members) - 1)) for own in members])


def overlaps(members: Tensor, share: float = 0.1) -> Tensor:
    """Intersection over union of the areas that two members' maps (members, images, c, h, w) mark:
    (images, members, members).

    An area is the ``share`` of the pixels with the largest absolute values, summed over channels, or less where values
    are equal; not a number for two maps that are constant. Two areas drawn at random overlap by share / (2 - share).
    ValueError for values that are not finite, and for maps of so few pixels that all would be marked.
    """
    strength = abs_sum(finite(members)).flatten(2)
    rest = math.floor((1 - share) * strength.shape[2] + 1e-6)  # pixels that are not marked; 0.1 of 10 is one
    if rest < 1:
        raise ValueError(f"a share of {share:g} of {strength.shape[2]} pixels is all of them; compare larger maps")
    edge = strength.kthvalue(rest, dim=2, keepdim=True).values
    area = (strength > edge).float()
    shared, marked = torch.einsum("inp,jnp->nij", area, area), area.sum(2).T
    return shared / (marked[:, :, None] + marked[:, None] - shared)


def least_alike(members: Tensor) -> list[tuple[int, int]]:
    """For each image the two members whose maps, (members, images, c, h, w), correlate least (Pearson, signed).

    Maps that are constant but for rounding, as those of a 1x1 layer, are compared by sign.
    """
    flat = finite(members).double().flatten(2)
    centred = flat - flat.mean(2, keepdim=True)
    constant = centred.norm(dim=2) < 1e-5 * flat.norm(dim=2)
    unit_maps = F.normalize(torch.where(constant[:, :, None], flat, centred), dim=2)
    correlation = torch.einsum("inp,jnp->nij", unit_maps, unit_maps)
    correlation.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    return [divmod(int(k), len(members)) for k in correlation.flatten(1).argmin(1)]
