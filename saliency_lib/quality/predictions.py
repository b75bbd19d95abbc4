"""How far a model's predictions are from another's, or from its own under noise."""

import torch
from torch import Tensor, int64, nn

from saliency_lib.attribution.smoothing import deviation
from saliency_lib.inference import accuracy, relative_drop


def prediction_difference(logits: Tensor, others: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of two models' softmax in per cent: summed over classes, and the target's alone, (n,) float64 each.

    Herdt et al. 2024, Tab. 3: 0 to 200 and 0 to 100.

    Parameters
    ----------
    logits, others : Tensor
        (n, classes) of one model and of the other.
    targets : Tensor
        (n,) int64.

    Raises
    ------
    ValueError
        For logits of two shapes, and targets that are not one class number each.
    """
    if logits.ndim != 2 or logits.shape != others.shape:
        raise ValueError(f"expected logits (n, classes) of both, not {tuple(logits.shape)} and {tuple(others.shape)}")
    n, classes = logits.shape
    if targets.shape != (n,) or targets.dtype != int64 or ((targets < 0) | (targets >= classes)).any():
        raise ValueError(
            f"expected {n} targets of int64 from 0 to {classes - 1}, not {tuple(targets.shape)} of {targets.dtype}"
            + (f" from {targets.min()} to {targets.max()}" if targets.numel() else "")
        )
    apart = 100 * (logits.detach().double().softmax(1) - others.detach().double().softmax(1)).abs()
    return apart.sum(1), apart.gather(1, targets.to(apart.device)[:, None])[:, 0]


def input_drop(
    model: nn.Module, images: Tensor, labels: Tensor, share: float, *, n_draws: int = 10, seed: int = 0
) -> Tensor:
    """Relative drop in accuracy of every draw of noise on the images, (n_draws,) float64; 0 none, 1 down to guessing.

    The noise is SmoothGrad's, its deviation a ``share`` of each image's range; the measure is that of
    :func:`saliency_lib.noisegrad.accuracy_drop`. All images of a draw have noise of their own.
    """
    noise = torch.randn(n_draws, *images.shape, generator=torch.Generator().manual_seed(seed)).to(images)
    scale, relative = deviation(images, share), relative_drop(accuracy(model, images, labels), labels)
    return relative([accuracy(model, images + scale * part, labels) for part in noise])
