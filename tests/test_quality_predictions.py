"""The distance of two models' predictions."""

import pytest
import torch
from conftest import noise
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from saliency_lib.quality import input_drop, prediction_difference


def test_prediction_difference_by_hand():
    one = torch.tensor([[0.5, 0.25, 0.25], [0.98, 0.01, 0.01]]).log()
    other = torch.tensor([[0.25, 0.5, 0.25], [0.98, 0.01, 0.01]]).log()
    every, target = prediction_difference(one + 3, other - 2, torch.tensor([2, 0]))
    assert every.dtype == target.dtype == torch.float64
    assert every.tolist() == pytest.approx([50, 0], abs=1e-4) and target.tolist() == pytest.approx([0, 0], abs=1e-4)
    assert prediction_difference(one, other, torch.tensor([1, 1]))[1].tolist() == pytest.approx([25, 0], abs=1e-4)
    certain = torch.tensor([[100.0, -100.0]])
    every, target = prediction_difference(certain, -certain, torch.tensor([1]))
    assert every.item() == pytest.approx(200) and target.item() == pytest.approx(100)


@given(seed=st.integers(0, 999), scale=st.floats(0, 1e3), classes=st.integers(1, 12))
def test_prediction_differences_are_symmetric_and_bounded(seed, scale, classes):
    one, other = noise(2, 6, classes, seed=seed) * scale
    targets = torch.arange(6) % classes
    every, target = prediction_difference(one, other, targets)
    assert all(torch.equal(a, b) for a, b in zip(prediction_difference(other, one, targets), (every, target)))
    assert (every <= 200 + 1e-9).all() and (target <= 100 + 1e-9).all() and (target >= 0).all()
    assert (2 * target <= every + 1e-9).all(), "what one class gains the others lose"
    assert not any(d.any() for d in prediction_difference(one, one, targets))


L, T = torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: prediction_difference(L, L[:, :2], T), r"of both, not \(2, 3\) and \(2, 2\)"),
        (lambda: prediction_difference(L[0], L[0], T), r"logits \(n, classes\)"),
        (lambda: prediction_difference(L, L, T[:1]), r"expected 2 targets of int64 from 0 to 2, not \(1,\)"),
        (lambda: prediction_difference(L, L, T.int()), "of torch.int32"),
        (lambda: prediction_difference(L, L, T + 3), "from 3 to 3"),
        (lambda: prediction_difference(L, L, T - 1), "from -1 to -1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_noise_on_images_costs_nothing_if_there_is_none_and_all_if_it_is_all_there_is():
    net = nn.Flatten().eval()  # two pixels, two classes: the brighter pixel
    labels = torch.arange(200) % 2
    images = nn.functional.one_hot(labels).float().view(200, 1, 1, 2)
    assert input_drop(net, images, labels, 0.0, n_draws=2).tolist() == [0, 0]
    drops = input_drop(net, images, labels, 1e6, n_draws=4)
    assert drops.dtype == torch.float64 and drops.mean().item() == pytest.approx(1, abs=0.15)
    with pytest.raises(ValueError, match="leaves nothing to lose against guessing"):
        input_drop(net, images, 1 - labels, 0.1)
    one = input_drop(net, images, labels, 1.0, n_draws=2, seed=3)
    assert torch.equal(one, input_drop(net, 4 * images, labels, 1.0, n_draws=2, seed=3)), "a share of the range"
