"""What a model predicts: whether it is right, and how far it is from another."""

import torch
from torch import Tensor


def _check(logits: Tensor, targets: Tensor) -> None:
    if logits.ndim != 2:
        raise ValueError(f"expected logits (n, classes), not {tuple(logits.shape)}")
    n, classes = logits.shape
    if targets.shape != (n,) or targets.dtype != torch.int64 or ((targets < 0) | (targets >= classes)).any():
        raise ValueError(
            f"expected {n} targets of int64 from 0 to {classes - 1}, not {tuple(targets.shape)} of {targets.dtype}"
            + (f" from {targets.min()} to {targets.max()}" if targets.numel() else "")
        )


def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """1 where the largest of the logits (n, classes) is the target's, else 0, (n,) float64; its mean is the accuracy.

    Raises
    ------
    ValueError
        For logits of another shape, and targets that are not one class number each.
    """
    _check(logits, targets)
    return (logits.argmax(1) == targets.to(logits.device)).double()


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
    if logits.shape != others.shape:
        raise ValueError(f"expected logits (n, classes) of both, not {tuple(logits.shape)} and {tuple(others.shape)}")
    _check(logits, targets)
    apart = 100 * (logits.detach().double().softmax(1) - others.detach().double().softmax(1)).abs()
    return apart.sum(1), apart.gather(1, targets.to(apart.device)[:, None])[:, 0]
