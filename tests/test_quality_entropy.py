"""Entropy of maps, and two tests with random weights that use more than a map's own: oracles and closed forms."""

import itertools

import numpy as np
import pytest
import quantus
import torch
from conftest import batch, tiny_net
from quantus.functions import complexity_func
from quantus.helpers.model.pytorch_model import PyTorchModel

from saliency_lib import attribution
from saliency_lib.channels import total
from saliency_lib.quality.entropy import discrete_entropy
from saliency_lib.runtime.seeds import INPUTS, derive, seeded
from saliency_lib.similarity import spearman


def test_entropy_of_a_histogram_is_quantus_own():
    maps = torch.randn(3, 2, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    expected = [[complexity_func.discrete_entropy(m.numpy(), None, n_bins=20) for m in row] for row in maps]
    np.testing.assert_allclose(discrete_entropy(maps, bins=20), expected)
    assert discrete_entropy(torch.ones(1, 1, 4, 4)).item() == 0
    half = torch.tensor([[[[0.0, 1], [1, 0]]]])
    assert discrete_entropy(half).item() == pytest.approx(np.log(2))


def test_smooth_and_efficient_randomisation_are_quantus_own(monkeypatch):
    """Notebook 12's two tests with random weights, all layers redrawn; Quantus adds a map without noise to the mean."""
    net, (x, y), copies = tiny_net(), batch(4), 3
    noise = torch.randn(copies, *x.shape[1:], generator=torch.Generator().manual_seed(derive(5, INPUTS)))
    drawn = itertools.cycle(noise.numpy())
    monkeypatch.setattr(np.random, "randn", lambda *shape: np.broadcast_to(next(drawn), shape))
    base = attribution.input_gradient

    options = {"layer_order": "top_down", "seed": 1, "abs": False, "normalise": False, "disable_warnings": True}
    given = {"device": "cpu", "explain_func": quantus.explain, "batch_size": len(x)}
    given["explain_func_kwargs"] = {"method": "Gradient"}  # signed, summed over channels
    last = {"nr_samples": copies + 1, "noise_magnitude": 0.15, "return_last_correlation": True}
    efficient = quantus.EfficientMPRT(
        complexity_func=complexity_func.discrete_entropy, complexity_func_kwargs={"n_bins": 20}, **options
    )
    with seeded(0):  # Quantus leaves another state of chance
        theirs = quantus.SmoothMPRT(**options, **last)(net, x.numpy(), y.numpy(), **given)
        rises = efficient(net, x.numpy(), y.numpy(), **given)
        redrawn = [copied for _, copied in PyTorchModel(net).get_random_layer_generator("top_down", 1)][-1]

    smooth = attribution.smooth(base, 0.15, copies)
    trained, random = (total(copies * smooth(m, x, y, seed=5) + base(m, x, y)) for m in (net, redrawn))
    np.testing.assert_allclose(theirs, spearman(trained, random), atol=1e-4)
    before, after = (discrete_entropy(total(base(m, x, y))[None], bins=20)[0] for m in (net, redrawn))
    np.testing.assert_allclose(rises, (after - before) / before, atol=1e-4)
