"""Insertion and deletion: a loop after RISE's as an oracle, models of known curves, order, sharing, bad input."""

import numpy as np
import pytest
import torch
from conftest import batch, tiny_net
from scipy.ndimage import gaussian_filter1d
from torch import nn

from saliency_lib import inference
from saliency_lib.quality import deletion, insertion
from saliency_lib.quality.curves import curves
from saliency_lib.runtime.code import hooks_of
from saliency_lib.runtime.seeds import seeded

BOTH = pytest.mark.parametrize("metric", [insertion, deletion])


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_maps(x, sets=None, seed=0):
    return noise(*([] if sets is None else [sets]), len(x), 1, *x.shape[-2:], seed=seed)


def probability(net, x, y):
    with torch.no_grad():
        return net(x).softmax(1)[range(len(x)), y].double()


def one_by_one(net, begin, end, y, maps, n_steps):
    """RISE's loop: one picture at a time, its pixels copied in falling order of the map, (n, n_steps + 1)."""
    curves = []
    for old, new, target, values in zip(begin.flatten(2), end.flatten(2), y, maps.flatten(1)):
        order = sorted(range(len(values)), key=lambda p: (-float(values[p]), p))
        picture, curve = old.clone(), []
        for step in range(n_steps + 1):
            changed = order[: round(step * len(order) / n_steps)]
            picture[:, changed] = new[:, changed]
            curve.append(probability(net, picture.view(1, *begin.shape[1:]), target[None]))
        curves.append(torch.cat(curve))
    return torch.stack(curves)


class Probability(nn.Module):
    """Gives class 1 the probability that is the mean of the picture, in [0, 1]."""

    def forward(self, x):
        mean = x.flatten(1).mean(1, keepdim=True)
        return torch.cat([1 - mean, mean], 1).log()


@pytest.mark.parametrize("n_steps", [1, 7, 28])
def test_curves_are_rises_loop(n_steps):
    net, (x, y) = tiny_net(), batch(2)
    maps, other = random_maps(x), noise(*x.shape, seed=1)
    found = curves(net, x, other, y, maps, n_steps)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, one_by_one(net, x, other, y, maps, n_steps), atol=1e-5, rtol=0)


@pytest.mark.parametrize("n_steps", [1, 7, 28])
def test_deletion_and_insertion_are_areas_under_rises_curves(n_steps):
    net, (x, y) = tiny_net(), batch(2)
    maps, shares = random_maps(x), np.array([round(k * 256 / n_steps) for k in range(n_steps + 1)]) / 256
    for metric, begin, end in ((deletion, x, torch.zeros_like(x)), (insertion, blurred(x), x)):
        area = np.trapezoid(one_by_one(net, begin, end, y, maps, n_steps), shares)
        found = metric(net, x, y, maps, n_steps=n_steps)
        torch.testing.assert_close(found, torch.from_numpy(area), atol=1e-5, rtol=0)


def blurred(x):
    """SciPy's blur of 11 x 11 pixels with the image mirrored about its outermost pixels."""
    for axis in (-2, -1):
        x = gaussian_filter1d(np.asarray(x, float), 5.0, axis=axis, mode="mirror", radius=5)
    return torch.from_numpy(x).float()


def test_curves_run_from_one_picture_to_the_other():
    net, (x, y) = tiny_net(), batch(4)
    other = noise(*x.shape)
    found = curves(net, other, x, y, random_maps(x, 3))
    torch.testing.assert_close(found[..., 0], probability(net, other, y).expand(3, -1), atol=1e-6, rtol=0)
    torch.testing.assert_close(found[..., -1], probability(net, x, y).expand(3, -1), atol=1e-6, rtol=0)


def test_28_steps_at_224_pixels_take_224_times_8_pixels_each():
    net, x, y = Probability().eval(), torch.ones(1, 1, 224, 224), torch.tensor([1])
    maps, share = random_maps(x), torch.arange(29).double() * 224 * 8 / 224**2
    found = curves(net, torch.full_like(x, 0.25), x, y, maps, batch_size=7)
    torch.testing.assert_close(found[0], 0.25 + 0.75 * share, atol=1e-6, rtol=0)
    assert deletion(net, x, y, maps, batch_size=7).item() == pytest.approx(0.5, abs=1e-6)


def test_steps_that_do_not_divide_the_pixels_are_weighted_by_what_they_hold():
    """A straight line's area is exact wherever its points are."""
    net, x, y = Probability().eval(), torch.ones(1, 1, 6, 6), torch.tensor([1])
    found = curves(net, x, torch.zeros_like(x), y, random_maps(x), n_steps=8)
    expected = [1 - count / 36 for count in (0, 4, 9, 14, 18, 22, 27, 32, 36)]
    assert found[0].tolist() == pytest.approx(expected, abs=1e-6), "round half to even"
    assert deletion(net, x, y, random_maps(x), n_steps=8).item() == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("better", [1, -1], ids=["pixels enter", "pixels go"])
def test_a_linear_models_own_contributions_are_the_best_order_and_reversed_the_worst(better):
    """After every step: the k largest contributions have the largest sum, and the softmax of two classes rises."""
    with seeded(0):
        net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2)).eval()
    x, other, y = noise(6, 3, 8, 8, seed=1), noise(6, 3, 8, 8, seed=2), torch.tensor([0, 1] * 3)
    weights = (net[1].weight[y] - net[1].weight[1 - y]).detach().view_as(x)
    true = (weights * (x - other)).sum(1, keepdim=True)
    maps = torch.cat([torch.stack([true, -true]), random_maps(x, 20)])
    found = better * curves(net, *((other, x) if better > 0 else (x, other)), y, maps, n_steps=16)
    inside = found[..., 1:-1]
    assert (inside[0] > inside[2:] - 1e-6).all() and (inside[1] < inside[2:] + 1e-6).all()
    areas = inside.mean(-1)
    assert (areas[0] - areas[2:] > 0.01).all() and (areas[2:] - areas[1] > 0.01).all()


@BOTH
def test_only_the_order_of_pixels_counts(metric):
    net, (x, y) = tiny_net(), batch(3)
    maps = random_maps(x)
    same = metric(net, x, y, torch.stack([maps, 1e-9 * maps, maps.double().exp(), maps - 100]))
    torch.testing.assert_close(same, same[:1].expand_as(same), atol=1e-6, rtol=0)
    assert (metric(net, x, y, -maps) - same[0]).abs().max() > 1e-3


def test_equal_pixels_go_in_reading_order():
    net, (x, y) = tiny_net(), batch(3)
    places = -torch.arange(256.0).view(1, 1, 16, 16).expand(3, 1, 16, 16)
    levels = (random_maps(x) > 0).float()
    tied, explicit = torch.stack([torch.zeros_like(levels), levels]), torch.stack([places, 1000 * levels + places])
    found, expected, backwards = (curves(net, x, 0 * x, y, maps) for maps in (tied, explicit, -places))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert (backwards - found[0]).abs().max() > 1e-3


def test_batches_do_not_matter():
    net, (x, y) = tiny_net(), batch(5)
    maps = random_maps(x, 2)
    expected = curves(net, x, 0 * x, y, maps, 6)
    for size in (1, 7):
        torch.testing.assert_close(curves(net, x, 0 * x, y, maps, 6, size), expected, atol=1e-5, rtol=0)


@BOTH
def test_several_sets_are_each_one_alone(metric):
    net, (x, y) = tiny_net(), batch(4)
    maps = random_maps(x, 6).view(2, 3, 4, 1, 16, 16)
    areas = metric(net, x, y, maps, n_steps=5)
    assert areas.shape == (2, 3, 4) and areas.dtype == torch.float64
    for i, j in np.ndindex(2, 3):
        alone = metric(net, x, y, maps[i, j], n_steps=5)
        assert alone.shape == (4,)
        torch.testing.assert_close(areas[i, j], alone, atol=1e-6, rtol=0)
    assert metric(net, x, y, maps[:0], n_steps=5).shape == (0, 3, 4)


@BOTH
@pytest.mark.parametrize("size,passes", [(8, [3, 3, 8, 8, 2]), (4, [3, 3, 4, 4, 4, 4, 2]), (2, [2, 1, 2, 1] + [2] * 9)])
def test_sets_and_steps_fill_the_passes_and_share_their_ends(metric, size, passes):
    net, (x, y), seen = tiny_net(), batch(3), []
    inference.facts(net, x)  # whose passes are those of the model, not of a metric
    handle = net.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    metric(net, x, y, random_maps(x, 2), n_steps=4, batch_size=size)
    handle.remove()
    assert seen == passes


@BOTH
def test_model_and_input_are_left_as_they_were(metric):
    net, (x, y) = tiny_net(), batch(3)
    maps = random_maps(x).requires_grad_()
    before, copies = {k: v.clone() for k, v in net.state_dict().items()}, (x.clone(), maps.detach().clone())
    x.requires_grad_()
    for targets in (y, y + 90):
        if targets is y:
            assert not metric(net, x, targets, maps).requires_grad
        else:
            with pytest.raises(ValueError, match="10 classes, 0 to 9"):
                metric(net, x, targets, maps)
        assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
        assert not any(hooks_of(net))
        assert not any(module.training for module in net.modules())
        assert x.grad is None and torch.equal(x, copies[0]) and torch.equal(maps, copies[1])
        assert all(p.grad is None and p.requires_grad for p in net.parameters())


X, Y = torch.zeros(2, 3, 16, 16), torch.zeros(2, dtype=torch.long)
M = torch.zeros(2, 1, 16, 16)
WRONG = [
    ({"maps": X}, r"need maps \(..., 2, 1, 16, 16\), not \(2, 3, 16, 16\); saliency_lib.channels makes one"),
    ({"maps": M[..., :8, :8]}, r"not \(2, 1, 8, 8\); .* attribution.layers.upsampled resizes"),
    ({"maps": M[:1]}, r"need maps \(..., 2, 1, 16, 16\)"),
    ({"maps": M[:, 0]}, r"not \(2, 16, 16\)"),
    ({"maps": M / 0}, "not finite, which have no order and are like nothing; look at the method"),
    ({"n_steps": 0}, "256 pixels take 1 to 256 steps, not n_steps=0"),
    ({"n_steps": 257}, "not n_steps=257"),
    ({"batch_size": 0}, "batch_size=0"),
    ({"targets": Y.int()}, "class numbers, int64"),
    ({"model": tiny_net().train()}, "training mode"),
]


@BOTH
@pytest.mark.parametrize("wrong,message", WRONG)
def test_bad_input_is_named(metric, wrong, message):
    with pytest.raises(ValueError, match=message):
        metric(**{"model": tiny_net(), "images": X, "targets": Y, "maps": M} | wrong)


def test_images_too_small_for_the_blur_are_refused():
    x = torch.zeros(1, 1, 5, 9)
    with pytest.raises(ValueError, match="a blur of 11 pixels needs images of 6 or more, not 5 x 9"):
        insertion(Probability().eval(), x, torch.tensor([1]), x)
    assert deletion(Probability().eval(), x, torch.tensor([1]), x).shape == (1,)
