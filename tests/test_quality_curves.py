"""Insertion and deletion: a loop after RISE's as an oracle, models of known curves, order, sharing, bad input."""

import numpy as np
import pytest
import torch
from conftest import batch, tiny_net
from scipy.ndimage import gaussian_filter1d
from torch import nn

from saliency_lib.quality import deletion, insertion
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


@pytest.mark.parametrize("n_steps,fill", [(1, 0.0), (7, -0.7), (28, 0.0)])
def test_deletion_is_rises_loop(n_steps, fill):
    net, (x, y) = tiny_net(), batch(2)
    maps = random_maps(x)
    areas, curves = deletion(net, x, y, maps, n_steps=n_steps, fill=fill, return_curves=True)
    expected = one_by_one(net, x, torch.full_like(x, fill), y, maps, n_steps)
    assert curves.dtype == areas.dtype == torch.float64
    torch.testing.assert_close(curves, expected, atol=1e-5, rtol=0)
    counts = np.array([round(k * 256 / n_steps) for k in range(n_steps + 1)])
    torch.testing.assert_close(areas, torch.from_numpy(np.trapezoid(expected, counts / 256)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("n_steps,given_start", [(1, True), (7, True), (28, False)])
def test_insertion_is_rises_loop(n_steps, given_start):
    net, (x, y) = tiny_net(), batch(2)
    maps, start = random_maps(x), noise(*x.shape, seed=1) if given_start else None
    areas, curves = insertion(net, x, y, maps, n_steps=n_steps, start=start, return_curves=True)
    expected = one_by_one(net, blurred(x, 11, 5.0) if start is None else start, x, y, maps, n_steps)
    torch.testing.assert_close(curves, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(insertion(net, x, y, maps, n_steps=n_steps, start=start), areas, atol=0, rtol=0)


def blurred(x, kernel, sigma):
    """SciPy's blur with the image mirrored about its outermost pixels."""
    for axis in (-2, -1):
        x = gaussian_filter1d(np.asarray(x, float), sigma, axis=axis, mode="mirror", radius=kernel // 2)
    return torch.from_numpy(x).float()


@pytest.mark.parametrize("kernel,sigma", [(11, 5.0), (5, 1.0), (1, 2.0)])
def test_insertion_begins_with_a_gaussian_blur(kernel, sigma):
    net, (x, y) = tiny_net(), batch(4)
    _, curves = insertion(net, x, y, random_maps(x), kernel=kernel, sigma=sigma, return_curves=True)
    torch.testing.assert_close(curves[:, 0], probability(net, blurred(x, kernel, sigma), y), atol=1e-5, rtol=0)


@BOTH
def test_curves_run_between_the_picture_and_what_it_is_made_from(metric):
    net, (x, y) = tiny_net(), batch(4)
    options = {"start": noise(*x.shape)} if metric is insertion else {"fill": 0.3}
    _, curves = metric(net, x, y, random_maps(x, 3), return_curves=True, **options)
    other = probability(net, options.get("start", torch.full_like(x, 0.3)), y).expand(3, -1)
    whole = probability(net, x, y).expand(3, -1)
    first, last = (other, whole) if metric is insertion else (whole, other)
    torch.testing.assert_close(curves[..., 0], first, atol=1e-6, rtol=0)
    torch.testing.assert_close(curves[..., -1], last, atol=1e-6, rtol=0)


def test_28_steps_at_224_pixels_take_224_times_8_pixels_each():
    x, y = torch.ones(1, 1, 224, 224), torch.tensor([1])
    area, curve = deletion(Probability().eval(), x, y, random_maps(x), batch_size=7, return_curves=True)
    share = torch.arange(29).double() * 224 * 8 / 224**2
    torch.testing.assert_close(curve[0], 1 - share, atol=1e-6, rtol=0)
    assert area.item() == pytest.approx(0.5, abs=1e-6)
    grey = torch.full_like(x, 0.25)
    area, curve = insertion(Probability().eval(), x, y, random_maps(x), start=grey, batch_size=7, return_curves=True)
    torch.testing.assert_close(curve[0], 0.25 + 0.75 * share, atol=1e-6, rtol=0)
    assert area.item() == pytest.approx(0.625, abs=1e-6)


def test_steps_that_do_not_divide_the_pixels_are_weighted_by_what_they_hold():
    """A straight line's area is exact wherever its points are."""
    x, y = torch.ones(1, 1, 5, 5), torch.tensor([1])
    area, curve = deletion(Probability().eval(), x, y, random_maps(x), n_steps=4, return_curves=True)
    assert curve[0].tolist() == pytest.approx([1, 19 / 25, 13 / 25, 6 / 25, 0], abs=1e-6), "round half to even"
    assert area.item() == pytest.approx(0.5, abs=1e-6)


@BOTH
def test_a_linear_models_own_contributions_are_the_best_order_and_reversed_the_worst(metric):
    """After every step: the k largest contributions have the largest sum, and the softmax of two classes rises."""
    with seeded(0):
        net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2)).eval()
    x, start, y = noise(6, 3, 8, 8, seed=1), noise(6, 3, 8, 8, seed=2), torch.tensor([0, 1] * 3)
    weights = (net[1].weight[y] - net[1].weight[1 - y]).detach().view_as(x)
    options = {"start": start} if metric is insertion else {"fill": 0.5}
    true = (weights * (x - options.get("start", 0.5))).sum(1, keepdim=True)
    maps = torch.cat([torch.stack([true, -true]), random_maps(x, 20)])
    areas, curves = metric(net, x, y, maps, n_steps=16, return_curves=True, **options)
    better = 1 if metric is insertion else -1
    inside = better * curves[..., 1:-1]
    assert (inside[0] > inside[2:] - 1e-6).all() and (inside[1] < inside[2:] + 1e-6).all()
    assert (better * (areas[0] - areas[2:]) > 0.01).all() and (better * (areas[2:] - areas[1]) > 0.01).all()


@BOTH
def test_only_the_order_of_pixels_counts(metric):
    net, (x, y) = tiny_net(), batch(3)
    maps = random_maps(x)
    same = metric(net, x, y, torch.stack([maps, 1e-9 * maps, maps.double().exp(), maps - 100]))
    torch.testing.assert_close(same, same[:1].expand_as(same), atol=1e-6, rtol=0)
    assert (metric(net, x, y, -maps) - same[0]).abs().max() > 1e-3


@BOTH
def test_equal_pixels_go_in_reading_order(metric):
    net, (x, y) = tiny_net(), batch(3)
    places = -torch.arange(256.0).view(1, 1, 16, 16).expand(3, 1, 16, 16)
    levels = (random_maps(x) > 0).float()
    tied, explicit = torch.stack([torch.zeros_like(levels), levels]), torch.stack([places, 1000 * levels + places])
    (_, found), (_, expected) = (metric(net, x, y, m, return_curves=True) for m in (tied, explicit))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    backwards = metric(net, x, y, -places, return_curves=True)[1]
    assert (backwards - found[0]).abs().max() > 1e-3


@BOTH
def test_batches_do_not_matter(metric):
    net, (x, y) = tiny_net(), batch(5)
    maps = random_maps(x, 2)
    _, expected = metric(net, x, y, maps, n_steps=6, return_curves=True)
    for size in (1, 7):
        _, curves = metric(net, x, y, maps, n_steps=6, batch_size=size, return_curves=True)
        torch.testing.assert_close(curves, expected, atol=1e-5, rtol=0)


@BOTH
def test_several_sets_are_each_one_alone(metric):
    net, (x, y) = tiny_net(), batch(4)
    maps = random_maps(x, 6).view(2, 3, 4, 1, 16, 16)
    areas, curves = metric(net, x, y, maps, n_steps=5, return_curves=True)
    assert areas.shape == (2, 3, 4) and curves.shape == (2, 3, 4, 6)
    for i, j in np.ndindex(2, 3):
        alone = metric(net, x, y, maps[i, j], n_steps=5)
        assert alone.shape == (4,)
        torch.testing.assert_close(areas[i, j], alone, atol=1e-6, rtol=0)
    assert metric(net, x, y, maps[:0], n_steps=5).shape == (0, 3, 4)


@BOTH
@pytest.mark.parametrize("size,passes", [(8, [3, 3, 8, 8, 2]), (4, [3, 3, 4, 4, 4, 4, 2]), (2, [2, 1, 2, 1] + [2] * 9)])
def test_sets_and_steps_fill_the_passes_and_share_their_ends(metric, size, passes):
    net, (x, y), seen = tiny_net(), batch(3), []
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
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    for targets in (y, y + 90):
        if targets is y:
            assert not metric(net, x, targets, maps).requires_grad
        else:
            with pytest.raises(ValueError, match="10 classes, 0 to 9"):
                metric(net, x, targets, maps)
        assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
        assert not any(getattr(module, kind) for module in net.modules() for kind in kinds)
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
    ({"maps": M / 0}, "not finite, so their pixels have no order"),
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


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: deletion(tiny_net(), X, Y, M, fill=float("nan")), "finite value, not fill=nan"),
        (lambda: insertion(tiny_net(), X, Y, M, start=X[:1]), r"images' shape \(2, 3, 16, 16\), not \(1, 3, 16, 16\)"),
        (lambda: insertion(tiny_net(), X, Y, M, start=X / 0), "start is finite"),
        (lambda: insertion(tiny_net(), X, Y, M, kernel=10), "16 x 16 .* odd kernel below 32 .*, not kernel=10"),
        (lambda: insertion(tiny_net(), X, Y, M, kernel=33), "not kernel=33 and sigma=5.0; or pass start="),
        (lambda: insertion(tiny_net(), X, Y, M, sigma=0.0), "a sigma > 0, not kernel=11 and sigma=0.0"),
    ],
)
def test_bad_beginnings_and_fills_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_largest_kernel_is_taken_and_a_start_needs_none():
    net, (x, y) = tiny_net(), batch(2)
    assert torch.isfinite(insertion(net, x, y, random_maps(x), kernel=31)).all()
    assert torch.isfinite(insertion(net, x, y, random_maps(x), kernel=99, start=x)).all()
