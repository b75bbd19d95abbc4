"""How many values a map has, and how evenly: the entropy of its histogram."""

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from saliency_lib.channels import finite


def discrete_entropy(maps: Tensor, bins: int = 100) -> Tensor:
    """Entropy of the histogram of a map's values, (...) float64 in nats, of maps (..., c, h, w): 0 for a constant map.

    Hedström et al. 2024, whose efficient test with random weights asks how much it rises; ``bins`` of equal width
    between the map's least and largest value. As in Quantus, but for its rule for ``bins``.
    """
    flat = finite(maps).detach().double().flatten(-3).flatten(0, -2).cpu().numpy()
    found = [stats.entropy(np.histogram(values, bins)[0]) for values in flat]
    return torch.tensor(found, dtype=torch.float64).view(maps.shape[:-3])
