"""A row of a table of methods: SNR with what tells how to read it, as estimates, and the paper's beside it."""

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from saliency_lib import controls, snr
from saliency_lib.attribution import layers
from saliency_lib.book import claims
from saliency_lib.controls import Controlled
from saliency_lib.estimates import Estimate, Replicates, together

PAPERS = 30  # networks in each ensemble of Woerl et al. 2023
COLUMNS = ("SNR (Eq. 5)", "corrected", "root mean square", "null", "level", "everywhere", "sampling",
           "without sampling")  # fmt: skip


def with_noise(ratio: Estimate) -> Estimate:
    """What Eq. 5 gives over the paper's 30 networks for a corrected SNR: the inverse of :func:`snr.debiased_number`."""
    return ratio.map(lambda value: (value**2 + 1 / PAPERS) ** 0.5)


def summary(m: Controlled) -> dict[str, Estimate | bool]:
    """The numbers of a row by name, SNRs and shares, with intervals over members; and whether its maps are none."""
    parts = {"corrected": m.own, "null": m.shifted, "mismatched": m.mismatched, "absolute": m.absolute,
             "absolute null": m.absolute_shifted}  # fmt: skip
    shares = {"SNR (Eq. 5)": m.plugin, "sampling": m.sampling, "level": m.level, "everywhere": m.everywhere,
              "likeness": m.likeness, "likeness mismatched": m.pairs_mismatched, "apart": m.apart}  # fmt: skip
    of_means = m.of_means.map(lambda powers: controls.unbiased_power(powers, m.independent))
    squares = {"root mean square": m.power, "without sampling": m.retraining, "of means": of_means}
    return (
        {name: part.corrected() for name, part in parts.items()}
        | {name: share.estimate() for name, share in shares.items()}
        | {name: square.estimate().map(snr.rooted) for name, square in squares.items()}
        | {"no map": m.constant == 1}
    )


def of_paper(row: str, model: str, dataset: str, excess: float = 1.0) -> list[float]:
    """Table 1 of Woerl et al. 2023: a row's SNRs, corrected, of the networks that are most like ``model``; they are
    ``excess`` times too large where a map is worth few pixels.

    Of both data sets where ``dataset`` is none of them; empty for rows that the table does not have. All variants of
    SHAP stand beside its one row.
    """
    table = claims.published("woerl2023_table1_snr").set_index("method")
    if dataset in set(table.dataset):
        table = table[table.dataset == dataset]
    name = "shap" if "shap" in row else row.replace("gradcam ", "gradcam_")
    if name not in table.index:
        return []
    like = ["resnet18", "resnet101"] if "resnet" in model else ["vgg19"]
    values = table.loc[[name], [model] if model in table else like]
    return [snr.debiased_number(value / excess, PAPERS) for value in values.to_numpy().ravel()]


def jointly(measured: Mapping[str, Controlled], names: Iterable[str], column: str) -> Replicates[dict]:
    """One attribute of several rows of the same members, {row: value}, for what is made of them all."""
    return together({name: getattr(measured[name], column) for name in names})


def relative(above: float, below: float) -> float:
    """Ratio of two SNRs from their squares; 0 for no signal above, no number for none below."""
    return snr.rooted(above / below) if below > 0 else math.nan


def lead(measured: Mapping[str, Controlled], row: str, names: Iterable[str]) -> Estimate:
    """SNR of a row, relative to the highest of the other rows in the same networks."""
    others = jointly(measured, [name for name in names if name != row], "power")
    return measured[row].power.estimate(relative, others.map(lambda of: max(of.values())))


class _Same(nn.Module):
    """A network that says the same of every image."""

    def __init__(self, classes: int):
        super().__init__()
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), self.classes)


def of_noise(
    model: nn.Module, images: Tensor, classes: int, rise: Callable, members: int, copies: int, seed: int = 0
) -> dict[str, float]:
    """Corrected SNR of noise put through what makes the maps of three rows never negative.

    Independent values after GradCAM's ReLU and resizing from the model's top layer, of 64 members; maps by ``rise`` of
    as many networks as ``members`` that give every image, (n, c, h, w), the same probability; and in closed form the
    variance of as many normal values as VarGrad has ``copies``.
    """
    with layers.explained(model, "top", images[:1]) as values, torch.no_grad():
        model(images[:1])
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(64 * len(images), 1, *values[0].shape[-2:], generator=generator).relu()
    same = _Same(classes).eval()
    some, targets = images[:8], torch.zeros(len(images[:8]), dtype=torch.int64, device=images.device)
    maps = {
        "gradcam top, ReLU": layers.upsampled(coarse, images).unflatten(0, (64, len(images))),
        "rise": snr.member_maps(rise, [same] * members, some, targets, seed=seed),
    }
    found = {row: snr.rooted(snr.paper_power(snr.measure_maps(m).value)) for row, m in maps.items()}
    return found | {"vargrad": ((copies - 1) / 2) ** 0.5}


def mean_log(squares: Iterable[Replicates[float]]) -> Replicates[float]:
    """Mean logarithm of several SNR, from their squares, for ratios; no number where one of them has no signal."""
    first, *rest = squares
    return first.map(lambda *each: sum(math.log(s) / 2 if s > 0 else math.nan for s in each) / len(each), *rest)
