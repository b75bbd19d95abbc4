"""What survives retraining: one method, one ensemble, and beside its SNR what the same maps score without a message."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saliency_lib import snr
from saliency_lib.randomness import derive
from saliency_lib.similarity import ssim, with_the_others
from saliency_lib.snr import Measurement, measure_maps

CHUNK_VALUES = 200_000_000  # of all members' maps together that are held at once


@dataclass(frozen=True)
class Survey:
    """A method's maps over an ensemble, measured.

    Attributes
    ----------
    own : Measurement
        Of the maps as they are.
    mismatched : Measurement
        Of the same maps when every member is shown another image: what is shared whatever the image.
    shifted : Measurement
        Of the same maps, each shifted around the edges by a random step: what shared signs alone score, the row's null.
    ssim : Tensor
        (members, images): SSIM of a member's map with the mean of the others' maps.
    """

    own: Measurement
    mismatched: Measurement
    shifted: Measurement
    ssim: Tensor


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


def survey(
    method: str | Callable[..., Tensor],
    ensemble: Sequence[nn.Module],
    images: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    batch_size: int | None = None,
) -> Survey:
    """Survey of a method over an ensemble; as many images at a time as leave their maps room in memory.

    Parameters
    ----------
    ensemble : sequence of nn.Module
        ``ensemble[i]`` gives a module in eval mode.
    images, targets : Tensor
        (n, c, h, w) normalised, and (n,), the same classes for all members.
    seed : int
        A stochastic method draws anew for every member, so that its own sampling counts as noise.
    """
    chunk = max(len(ensemble), CHUNK_VALUES // (len(ensemble) * images[0].numel()))
    starts = list(range(0, len(images), chunk))
    if len(starts) > 1 and len(images) - starts[-1] < len(ensemble):
        starts.pop()  # the rest is too small to mismatch, and goes with the last
    parts = []
    for start, end in zip(starts, [*starts[1:], len(images)]):
        maps = snr.member_maps(
            method, ensemble, images[start:end], targets[start:end], seed=seed, batch_size=batch_size
        )
        likeness = with_the_others(ssim, maps).cpu()
        moved = shift(maps, derive(seed, start))
        parts.append((measure_maps(maps), measure_maps(mismatch(maps)), measure_maps(moved), likeness))
    own, mismatched, shifted, likeness = zip(*parts)
    return Survey(*(snr.joined(part) for part in (own, mismatched, shifted)), torch.cat(likeness, 1))


def sampling_share(
    method: str | Callable[..., Tensor],
    ensemble: Sequence[nn.Module],
    images: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    batch_size: int | None = None,
) -> float:
    """Share of the noise over members that is the method's own sampling: half the mean squared difference of a member's
    maps from two seeds, over the variance between members; 0 for a deterministic method."""
    first, second = (
        snr.member_maps(method, ensemble, images, targets, seed=derive(seed, k), batch_size=batch_size) for k in (0, 1)
    )
    own = (first - second).square().sum() / (2 * len(first))
    return (own / measure_maps(first).all.noise.sum()).item()
