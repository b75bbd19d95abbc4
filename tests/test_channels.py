"""Channel reductions keep an axis of one channel, and all axes before."""

import torch

from saliency_lib import channels


def test_reductions_by_hand():
    maps = torch.tensor([[1.0, -2.0], [-3.0, 4.0]]).view(2, 2, 1, 1)  # two images of two channels
    assert channels.total(maps).flatten().tolist() == [-1, 1]
    assert channels.abs_sum(maps).flatten().tolist() == [3, 7]
    for reduce in (channels.total, channels.abs_sum):
        assert reduce(maps.expand(5, 2, 2, 3, 4)).shape == (5, 2, 1, 3, 4)
