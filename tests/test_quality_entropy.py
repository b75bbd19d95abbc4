"""Entropy of maps: an oracle and closed forms."""

import numpy as np
import pytest
import torch
from quantus.functions import complexity_func

from saliency_lib.quality.entropy import discrete_entropy


def test_entropy_of_a_histogram_is_quantus_own():
    maps = torch.randn(3, 2, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    expected = [[complexity_func.discrete_entropy(m.numpy(), None, n_bins=20) for m in row] for row in maps]
    np.testing.assert_allclose(discrete_entropy(maps, bins=20), expected)
    assert discrete_entropy(torch.ones(1, 1, 4, 4)).item() == 0
    half = torch.tensor([[[[0.0, 1], [1, 0]]]])
    assert discrete_entropy(half).item() == pytest.approx(np.log(2))
