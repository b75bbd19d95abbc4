"""What survives retraining: one method, one ensemble, and beside its SNR what the same maps score without a message."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saliency_lib import estimates, snr
from saliency_lib.estimates import Estimate
from saliency_lib.randomness import derive
from saliency_lib.similarity import least_alike, ssim, with_the_others
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
    apart : Tensor
        (images,): SSIM of the maps of the two members that are least alike (by Pearson correlation).
    """

    own: Measurement
    mismatched: Measurement
    shifted: Measurement
    ssim: Tensor
    apart: Tensor

    def row(self) -> dict[str, float | Estimate]:
        """The numbers of a table's row, with what a jackknife over members of several rows together needs.

        ``debiased without k`` and ``ssim without k`` leave out the k-th group of members, see :func:`over_networks`.
        """
        groups = len(self.own.sizes)
        of_member, group = self.ssim.mean(1), torch.arange(len(self.ssim)) % max(groups, 1)
        found = {
            "snr": self.own.estimate(snr.plugin_mean),
            "debiased": self.own.debiased(),
            "null": snr.plugin_mean(self.shifted.all),
            "null debiased": snr.debiased_mean(self.shifted.all),
            "mismatched": self.mismatched.debiased(),
            "clipped": self.own.clipped,
            "ssim": estimates.student(of_member),
            "apart": estimates.student(self.apart),
        }
        for k, powers in enumerate(self.own.without):
            found[f"debiased without {k}"] = snr.debiased_mean(powers)
            found[f"ssim without {k}"] = of_member[group != k].mean().item()
        return found


def over_networks(statistic: Callable[..., float], rows: dict[str, dict], sizes: Sequence[int], *columns: str):
    """``statistic({row: value}, ...)`` of columns of several rows, by one ensemble each or the same, with its jackknife
    interval over members; ``columns`` are ``debiased`` and ``ssim``, ``sizes`` the members in each group."""

    def values(column: str, end: str) -> dict[str, float]:
        return {
            name: float(row[column + end][0] if isinstance(row[column + end], Estimate) else row[column + end])
            for name, row in rows.items()
        }

    left_out = [statistic(*(values(c, f" without {k}") for c in columns)) for k in range(len(sizes))]
    return estimates.jackknife(statistic(*(values(c, "") for c in columns)), left_out, sizes)


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
        measured = [measure_maps(m) for m in (maps, mismatch(maps), shift(maps, derive(seed, start)))]
        pairs = torch.tensor(least_alike(maps)).T
        images_ = torch.arange(maps.shape[1])
        apart = ssim(maps[pairs[0], images_], maps[pairs[1], images_])
        parts.append((*measured, with_the_others(ssim, maps).cpu(), apart.cpu()))
    *measured, likeness, apart = zip(*parts)
    return Survey(*(snr.joined(part) for part in measured), torch.cat(likeness, 1), torch.cat(apart))


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
