"""Channel reductions by name: maps (..., c, h, w) to (..., 1, h, w)."""

from torch import Tensor


def total(maps: Tensor) -> Tensor:
    """Sum over channels, signed: evidence for less evidence against."""
    return maps.sum(-3, keepdim=True)


def abs_sum(maps: Tensor) -> Tensor:
    """Sum of absolute values over channels: how much, whatever the sign."""
    return maps.abs().sum(-3, keepdim=True)
