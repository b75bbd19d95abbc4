"""Channel reductions by name: maps (..., c, h, w) to (..., 1, h, w); and a check of what they hold."""

from torch import Tensor


def total(maps: Tensor) -> Tensor:
    """Sum over channels, signed: evidence for less evidence against."""
    return maps.sum(-3, keepdim=True)


def abs_sum(maps: Tensor) -> Tensor:
    """Sum of absolute values over channels: how much, whatever the sign."""
    return maps.abs().sum(-3, keepdim=True)


def finite(maps: Tensor) -> Tensor:
    """The maps themselves; ValueError for values that are not finite."""
    if not maps.isfinite().all():
        raise ValueError(
            "the maps hold values that are not finite, which have no order and are like nothing; look at the method"
        )
    return maps
