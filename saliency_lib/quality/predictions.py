"""How far a model's predictions are from another's."""

from torch import Tensor, int64


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
