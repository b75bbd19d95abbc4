"""A large network's cascade, with weights that are drawn."""

import numpy as np
import pytest
import torch

from saliency_lib import data
from saliency_lib.book import large
from saliency_lib.similarity import MEASURES


def test_its_cascade_has_a_value_for_every_block_image_method_and_measure():
    net, again = (large.network("squeezenet1_1", None, seed=1) for _ in range(2))
    assert not net.training and all(map(torch.equal, net.state_dict().values(), again.state_dict().values()))
    x = large.images("photodigits", 2, 64)
    pixels = data.load("photodigits", "val", n=2, size=64).images / 255
    torch.testing.assert_close(x[:, 1].cpu() * 0.224 + 0.456, pixels[:, 1])
    found = large.cascade(net, x, n_samples=2, n_steps=2, seed=0)
    assert list(found) == list(large.methods("features", 2, 2))
    assert all(list(of) == list(MEASURES) for of in found.values())
    shapes = {values.shape for of in found.values() for values in of.values()}
    assert len(shapes) == 1 and shapes.pop()[1] == 2
    assert all(np.isfinite(values).all() for of in found.values() for values in of.values())


def test_weights_that_cannot_be_had_are_a_warning(monkeypatch):
    def offline(name, weights):
        raise OSError("no way out")

    monkeypatch.setattr(large, "get_model", offline)
    with pytest.warns(UserWarning, match="no weights of inception_v3: no way out"):
        assert large.network("inception_v3", "IMAGENET1K_V1") is None
