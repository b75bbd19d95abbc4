"""The four criteria of Bykov et al. 2022 at once, for methods that are to be compared."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from scipy import stats
from torch import Tensor, nn

from saliency_lib.channels import abs_sum
from saliency_lib.quality.faithfulness import faithfulness_correlation
from saliency_lib.quality.localisation import relevance_rank_accuracy
from saliency_lib.quality.robustness import max_sensitivity
from saliency_lib.quality.texture import gini

CRITERIA = {"localisation": 1, "faithfulness": 1, "robustness": -1, "sparseness": 1}  # -1: lower is better


def criteria(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    masks: Tensor,
    *,
    methods: Sequence[Callable[..., Tensor]],
    n_runs: int = 100,
    subset_size: int = 224,
    n_nudges: int = 10,
    radius: float = 0.2,
    seed: int = 0,
) -> Tensor:
    """Bykov et al. 2022, Tab. 1, in the order of ``CRITERIA``, of absolute maps summed over colours.

    Parameters
    ----------
    masks : Tensor
        (n, h, w) bool, True on the object.
    methods : sequence of callable
        Functions of the methods' signature.
    n_runs, subset_size
        Of :func:`saliency_lib.quality.faithfulness_correlation`; smaller pictures need smaller subsets.
    n_nudges, radius
        How many times each image is changed, and how much, for :func:`saliency_lib.quality.max_sensitivity`.

    Returns
    -------
    Tensor
        (criteria, methods, n) float64.
    """
    maps = torch.stack([abs_sum(method(model, images, targets, seed=seed)) for method in methods])
    nudged = partial(max_sensitivity, radius=radius, n_samples=n_nudges, seed=seed)
    robust = torch.stack([nudged(f, model, images, targets, maps=own) for f, own in zip(methods, maps)])
    of_subsets = {"n_runs": n_runs, "subset_size": subset_size}
    faithful = faithfulness_correlation(model, images, targets, maps, **of_subsets, seed=seed)
    return torch.stack([relevance_rank_accuracy(maps, masks), faithful, robust, gini(maps)])


def sensitivities(
    model, images, targets, masks, *, methods, radii, n_nudges: int = 10, redraw: bool = False, seed: int = 0
) -> Tensor:
    """Max-sensitivity of every method to nudges of every size, (radii, methods, n) float64.

    As in :func:`criteria`, whose signature it has; the masks do not matter.
    """
    nudged = partial(max_sensitivity, n_samples=n_nudges, redraw=redraw, seed=seed)
    found = []
    for f in methods:
        maps = abs_sum(f(model, images, targets, seed=seed))
        found.append(torch.stack([nudged(f, model, images, targets, radius=r, maps=maps) for r in radii]))
    return torch.stack(found, 1)


def not_beaten(values: Mapping[str, Tensor], sign: int = 1) -> set[str]:
    """The best on average, and all that it does not beat: Wilcoxon's signed-rank test, one-sided, p = 0.05.

    Bykov et al. 2022, bold in Tab. 1 and 2.

    Parameters
    ----------
    values : dict
        By method, the criterion on the same images, in any shape; an image with a NaN of one method counts for none.
    sign : int
        -1 where lower is better, as in ``CRITERIA``.
    """
    numbers = torch.stack([own.flatten() for own in values.values()]).isfinite().all(0)
    values = {name: own.flatten()[numbers] for name, own in values.items()}
    best = max(values, key=lambda name: sign * values[name].mean())
    margins = {name: sign * (values[best] - own) for name, own in values.items()}
    tied = {name for name, margin in margins.items() if not margin.any()}
    return tied | {
        name
        for name in margins.keys() - tied
        if stats.wilcoxon(margins[name].cpu(), alternative="greater").pvalue >= 0.05
    }
