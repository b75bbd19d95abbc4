"""At which scales networks agree: power of what their maps share, and of what is each one's own, by spatial frequency.

A ring holds the Fourier components whose radial frequency, in cycles per picture, rounds to the same number. All here
follows from one table: how alike the components of two maps are, ring by ring (:func:`cross_power`).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from saliency_lib.channels import finite


def rings(height: int, width: int) -> Tensor:
    """The ring of each component of ``torch.fft.fft2``, (h, w) int64: cycles in the shorter side, 0 for the mean."""
    y, x = (torch.fft.fftfreq(side, dtype=torch.float64) * min(height, width) for side in (height, width))
    found = torch.hypot(y[:, None], x[None]).round().clamp(min=1).long()
    found[0, 0] = 0
    return found


def cross_power(maps: Tensor) -> np.ndarray:
    """Products of the components of every two members' maps, mean over a ring's components, (rings, n, n) float64.

    Parameters
    ----------
    maps : Tensor
        (n, images, c, h, w), of n networks; the mean is over images and channels too. Maps of another scale can be
        brought to one before.

    Returns
    -------
    np.ndarray
        A member with itself: the power of its maps, which is flat at the variance for white noise and whose sum over
        components is the sum of squares (Parseval). With another: the power of what both share.

    Raises
    ------
    ValueError
        For other axes, and values that are not finite.
    """
    if maps.ndim != 5:
        raise ValueError(f"expected maps (networks, images, c, h, w), not {tuple(maps.shape)}")
    height, width = maps.shape[-2:]
    waves = torch.fft.fft2(finite(maps.detach()).double(), norm="ortho").flatten(-2)
    where = rings(height, width).flatten()
    found = []
    for ring in range(int(where.max()) + 1):
        part = torch.view_as_real(waves[..., where == ring]).flatten(1)
        found.append(part @ part.T / (part.shape[1] / 2))
    return torch.stack(found).cpu().numpy()


def shared(power: np.ndarray, members: Sequence[int] | None = None) -> np.ndarray:
    """Power of the maps' common part by ring, (rings,): mean over pairs of different networks, without bias.

    ``members`` are those of :func:`cross_power` that count; by chance it can be below zero.
    """
    power = _of(power, members)
    n = power.shape[1]
    if n < 2:
        raise ValueError("what networks share takes two of them")
    return (power.sum((1, 2)) - np.trace(power, axis1=1, axis2=2)) / (n * (n - 1))


def own(power: np.ndarray, members: Sequence[int] | None = None) -> np.ndarray:
    """Power of what is each network's own, (rings,): that of a map less that of the common part, without bias."""
    power = _of(power, members)
    return np.trace(power, axis1=1, axis2=2) / power.shape[1] - shared(power)


def ratio(
    power: np.ndarray,
    size: Sequence[int],
    keep: slice | Sequence[int] | np.ndarray = slice(None),
    members: Sequence[int] | None = None,
) -> float:
    """Shared over own power of maps of a size (h, w) of which only the rings ``keep`` are left: the square of their
    signal-to-noise ratio, without bias; nan for none."""
    counts = rings(*size).flatten().bincount().numpy()[keep]
    common, noise = (counts @ part(power, members)[keep] for part in (shared, own))
    return float(common / noise) if counts.size else math.nan


def gain(power: np.ndarray) -> np.ndarray:
    """Wiener's gain S / (S + N) by ring, (rings,) in [0, 1]: times it, one map comes nearest to the common part
    (Wiener 1949). 0 where nothing is shared."""
    common, noise = np.maximum(shared(power), 0), np.maximum(own(power), 0)
    return np.divide(common, common + noise, out=np.zeros_like(common), where=common > 0)


def multiplied(maps: Tensor, gains: Sequence[float] | np.ndarray) -> Tensor:
    """Maps (..., h, w) whose components are multiplied by the gain of their ring; of other sizes than the gains' by the
    gain at the same share of the highest frequency.

    Raises
    ------
    ValueError
        For gains that are not (rings,) finite numbers.
    """
    gains = np.asarray(gains, float)
    if gains.ndim != 1 or not len(gains) or not np.isfinite(gains).all():
        raise ValueError(f"gains are finite numbers, one a ring, not {gains.tolist()}")
    where = rings(*maps.shape[-2:]).double()
    place = where / max(1, where.max().item()) * (len(gains) - 1)
    factors = torch.as_tensor(np.interp(place.numpy(), np.arange(len(gains)), gains)).to(maps)
    return torch.fft.ifft2(torch.fft.fft2(maps) * factors).real


def _of(power: np.ndarray, members: Sequence[int] | None) -> np.ndarray:
    return power if members is None else power[:, members][:, :, members]
