"""What survives retraining: one method, one ensemble, and beside its SNR what the same maps score without a message."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from saliency_lib import snr
from saliency_lib.estimates import GROUPS, Estimate, jackknife
from saliency_lib.runtime import executors
from saliency_lib.runtime.seeds import derive
from saliency_lib.similarity import ssim, ssim_of_pairs, with_the_others
from saliency_lib.snr import Measurement, measure_maps

AGAIN, SHIFT = 1, 2  # what seeds are for
CHUNK_VALUES = 100_000_000  # of all members' maps together; about twenty times as many bytes each are held at the peak


@dataclass(frozen=True)
class Survey:
    """A method's maps over an ensemble, measured.

    Attributes
    ----------
    own : Measurement
        Of the maps as they are.
    mismatched : Measurement
        Of the same maps when every member is shown another image.
    shifted : Measurement
        Of the same maps, each moved around the edges by a random step: the row's null.
    absolute, absolute_shifted : Measurement
        Of absolute values, and their null.
    level : float
        Share of the signal's power that is the maps' mean level, the same at every pixel.
    everywhere : float
        Share of the signal's power that is the same for every image.
    sampling : Tensor
        (members, images): squared norm of the noise that is the method's own sampling; 0 for deterministic methods.
    likeness : tuple of float
        SSIM of a member's map and the mean of the others' maps: over all members, and without each group of them.
    pairs, pairs_mismatched : Tensor
        (members, members): mean SSIM of two members' maps of the same image, and of different images.
    """

    own: Measurement
    mismatched: Measurement
    shifted: Measurement
    absolute: Measurement
    absolute_shifted: Measurement
    level: float
    everywhere: float
    sampling: Tensor
    likeness: tuple[float, ...]
    pairs: Tensor
    pairs_mismatched: Tensor

    def row(self) -> dict[str, float | Estimate]:
        """The numbers of a table's row; ``... without k`` leaves out the k-th group of members, for :func:`jointly`."""
        n = len(self.sampling)
        kept = list(_kept(n)) if n > 2 else []
        power, share = [], []
        for powers, members in zip((self.own.value, *self.own.without), (torch.arange(n), *kept)):
            power.append(snr.power_mean(powers))
            share.append((self.sampling[members].mean(0).to(powers.noise) / powers.noise).nanmean().item())
        retraining = [p / (1 - s) if s < 1 else math.nan for p, s in zip(power, share)]
        apart = [self._apart(members) for members in (torch.arange(n), *kept)]

        def estimate(values: Sequence[float]) -> Estimate:
            return jackknife(values[0], values[1:], self.own.sizes)

        columns = with_parts("power", power) | with_parts("retraining", retraining) | with_parts("ssim", self.likeness)
        return {
            "snr": self.own.estimate(snr.plugin_mean),
            "debiased": snr.root(estimate(power)),
            "without sampling": snr.root(estimate(retraining)),
            "sampling": estimate(share),
            "null": snr.plugin_mean(self.shifted.value),
            "null debiased": snr.debiased_mean(self.shifted.value),
            "mismatched": self.mismatched.debiased(),
            "level": self.level,
            "everywhere": self.everywhere,
            "clipped": self.own.clipped,
            "absolute": self.absolute.debiased(),
            "absolute null": snr.debiased_mean(self.absolute_shifted.value),
            "likeness": estimate(self.likeness),
            "likeness mismatched": _of_pairs(self.pairs_mismatched, torch.arange(n)),
            "apart": estimate(apart),
        } | columns

    def _apart(self, members: Tensor) -> float:
        """How far two members' maps are from equal (0), where maps of different images are at 1."""
        same, other = (_of_pairs(matrix, members) for matrix in (self.pairs, self.pairs_mismatched))
        return (1 - same) / (1 - other) if other < 1 - 1e-9 else math.nan


def with_parts(name: str, values: Sequence[float]) -> dict[str, float]:
    """A row's columns of a statistic of all members and of all but each group of them: ``name``, ``name without 0``."""
    return {f"{name} without {k - 1}" if k else name: value for k, value in enumerate(values)}


def jointly(statistic: Callable[..., float], rows: dict[str, dict], members: int, *columns: str) -> Estimate:
    """``statistic({row: value}, ...)`` of columns of several rows with its jackknife interval over members.

    Parameters
    ----------
    rows : dict
        ``{name: Survey.row()}``, of one ensemble or of several that grew alike.
    members : int
        Of each ensemble.
    columns : str
        ``power`` (squared SNR), ``retraining`` (the same without the method's own sampling) or ``ssim``.
    """
    groups = min(members, GROUPS) if members > 2 else 0

    def values(end: str) -> list[dict[str, float]]:
        return [{name: row[column + end] for name, row in rows.items()} for column in columns]

    left_out = [statistic(*values(f" without {k}")) for k in range(groups)]
    return jackknife(statistic(*values("")), left_out, [len(range(k, members, groups)) for k in range(groups)])


def _kept(n: int):
    """For each group of the jackknife, the members that are not in it."""
    for k in range(min(n, GROUPS)):
        yield torch.tensor([i for i in range(n) if i % min(n, GROUPS) != k])


def _of_pairs(matrix: Tensor, members: Tensor) -> float:
    """Mean over pairs of different members."""
    part = matrix[members][:, members]
    return ((part.sum() - part.trace()) / (len(members) * (len(members) - 1))).item()


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


def _signal_shares(maps: Tensor, own: Measurement) -> tuple[float, float]:
    """Shares of the signal's power that are one level for all pixels, and one map for all images; unbiased above and
    below the line, since only products of different members count."""
    scaled = (maps.double() / own.value.noise.sqrt().view(1, -1, 1, 1, 1)).nan_to_num_(0.0)  # 0 / 0 of a silent image

    def products(m: Tensor) -> float:  # mean over pairs of different members of their inner product
        total = m.sum(0)
        return ((total * total).sum() - (m * m).sum()).item() / (len(m) * (len(m) - 1))

    same = products(scaled)
    pixels, images = scaled[0, 0, 0].numel(), scaled.shape[1]
    level = products(scaled.mean((-2, -1))) * pixels
    across = (products(scaled.sum(1)) - same) / (images - 1) if images > 1 else float("nan")
    return (level / same, across / same) if same > 0 else (float("nan"), float("nan"))


def survey(
    method: str | Callable[..., Tensor],
    ensemble: Sequence[nn.Module],
    images: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    resample: bool = False,
    executor: str = "serial",
) -> Survey:
    """Survey of a method over an ensemble, as many images at a time as leave their maps room in memory.

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
        Where the parts are computed, a task each, as in :func:`saliency_lib.runtime.executors.get`.
    """
    if len(images) < len(ensemble):
        raise ValueError(f"{len(ensemble)} members need as many different images, not {len(images)}")
    chunk = max(len(ensemble), CHUNK_VALUES // (len(ensemble) * images[0].numel()))
    count = max(1, len(images) // chunk)  # each chunk at least as large, so that it has an image for every member
    seeds = [seed, derive(seed, AGAIN)] if resample else [seed]
    items = [
        (int(rows[0]), images[rows], targets[rows], seeds, derive(seed, SHIFT, int(rows[0])))
        for rows in torch.arange(len(images)).tensor_split(count)
    ]
    task = partial(_part, method, ensemble, batch_size)
    found = {item[0]: part for item, part in executors.get(executor).map(task, items, images.device.type)}
    return found[0] if len(found) == 1 else _joined([found[start] for start in sorted(found)])


def _part(method, ensemble, batch_size, item: tuple) -> Survey:
    """Survey of some of the images."""
    _, images, targets, seeds, shifting = item
    drawn = [snr.member_maps(method, ensemble, images, targets, seed=s, batch_size=batch_size) for s in seeds]
    return _measured(drawn, shifting)


def _measured(drawn: list[Tensor], seed: int) -> Survey:
    """Survey of maps, (members, images, c, h, w), drawn once or twice."""
    maps, sampling = drawn[0], torch.zeros(drawn[0].shape[:2])
    if len(drawn) > 1:
        sampling = (maps - drawn[1]).double().square().flatten(2).sum(2).cpu() / 2
    own, moved = measure_maps(maps), shift(maps, seed)
    some = [torch.arange(len(maps)), *(_kept(len(maps)) if len(maps) > 2 else [])]
    return Survey(
        own,
        measure_maps(mismatch(maps)),
        measure_maps(moved),
        measure_maps(maps.abs()),
        measure_maps(moved.abs()),
        *_signal_shares(maps, own),
        sampling,
        tuple(with_the_others(ssim, maps[members]).mean().item() for members in some),
        ssim_of_pairs(maps),
        ssim_of_pairs(maps, step=1),
    )


def _joined(parts: list[Survey]) -> Survey:
    """One survey out of those of parts of the images, of which there are as many in each but for one or two."""
    weights = torch.tensor([part.sampling.shape[1] for part in parts], dtype=torch.float64)
    weights /= weights.sum()

    def mean(values: list) -> Tensor:
        return torch.tensordot(weights, torch.stack([torch.as_tensor(v, dtype=torch.float64) for v in values]), 1)

    measured = ("own", "mismatched", "shifted", "absolute", "absolute_shifted")
    of = {name: [getattr(part, name) for part in parts] for name in Survey.__dataclass_fields__}
    return Survey(
        *(snr.joined(of[name]) for name in measured),
        mean(of["level"]).item(),
        mean(of["everywhere"]).item(),
        torch.cat(of["sampling"], 1),
        tuple(mean(of["likeness"]).tolist()),
        mean(of["pairs"]),
        mean(of["pairs_mismatched"]),
    )
