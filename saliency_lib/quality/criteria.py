"""The four criteria of Bykov et al. 2022 at once, for methods that are to be compared."""

from collections.abc import Callable, Sequence

import torch
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
    n_runs : int
        Of :func:`saliency_lib.quality.faithfulness_correlation`.
    n_nudges, radius
        How many times each image is changed, and how much, for :func:`saliency_lib.quality.max_sensitivity`.

    Returns
    -------
    Tensor
        (criteria, methods, n) float64.
    """
    maps = torch.stack([abs_sum(method(model, images, targets, seed=seed)) for method in methods])
    robust = [
        max_sensitivity(method, model, images, targets, radius=radius, n_samples=n_nudges, seed=seed)
        for method in methods
    ]
    faithful = faithfulness_correlation(model, images, targets, maps, n_runs=n_runs, seed=seed)
    return torch.stack([relevance_rank_accuracy(maps, masks), faithful, torch.stack(robust), gini(maps)])
