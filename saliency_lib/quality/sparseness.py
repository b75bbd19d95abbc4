"""How few pixels hold a map."""

import torch
from torch import Tensor


def gini(maps: Tensor) -> Tensor:
    """Gini index of a map's values, (..., n) float64: 0 if all are equal, 1 - 1/pixels if one holds everything.

    Chalasani et al. 2020. Not a number for a map of zeros, where Quantus gives 0.

    Parameters
    ----------
    maps : Tensor
        (..., n, c, h, w), never negative: take absolute values before.

    Raises
    ------
    ValueError
        For negative values or such that are not finite.
    """
    values = maps.detach().double().flatten(-3)
    if not torch.isfinite(values).all() or (values < 0).any():
        raise ValueError("the Gini index is of finite values that are not negative; use channels.abs_sum(maps)")
    n = values.shape[-1]
    weights = 2 * torch.arange(1, n + 1, device=values.device) - n - 1
    return (values.sort(-1).values * weights).sum(-1) / (n * values.sum(-1))
