"""LIME and KernelSHAP: captum's coefficients from the same samples, Shapley values by their definition, superpixels."""

import itertools
import math

import captum.attr
import numpy as np
import pytest
import torch
from captum._utils.models.linear_model import SkLearnRidge
from conftest import NETS, as_it_comes, batch, tiny_net
from scipy.stats import spearmanr
from skimage import segmentation
from torch import nn

from saliency_lib import attribution, data
from saliency_lib.attribution import lime_shap
from saliency_lib.attribution.lime_shap import draw_coalitions, superpixels


@pytest.fixture(scope="module")
def pictures():
    val = data.load("photodigits", "val", n=4)
    return val.inputs(), val.labels


def per_segment(maps, image, n_segments):
    segments = superpixels(image, n_segments)
    return np.array([float(maps[0][segments == k][0]) for k in range(int(segments.max()) + 1)])


def replay(masks):
    """captum asks for one perturbation at a time; this gives it ours."""
    rows = iter(masks)

    def next_mask(_original, **_options):
        return torch.from_numpy(next(rows).astype(np.float32))[None]

    return next_mask


@pytest.mark.parametrize("name,norm", NETS)
def test_lime_is_captums_with_the_same_superpixels_and_samples(pictures, name, norm, monkeypatch):
    net, (x, y), n = tiny_net(name=name, norm=norm, size=32), (part[:2] for part in pictures), 100
    original, seen = lime_shap.fit_lime, {}

    def spy(masks, *rest):
        seen["masks"] = masks
        return original(masks, *rest)

    monkeypatch.setattr(lime_shap, "fit_lime", spy)
    for image, target in zip(x, y):
        segments = superpixels(image, 20)
        k = int(segments.max()) + 1
        maps = attribution.lime(net, image[None], target[None], n_samples=n, n_segments=20)

        def weight(_input, _perturbed, mask, **_options):
            shown = mask.sum().item()
            return math.sqrt(math.exp(-((1 - shown / math.sqrt(max(shown, 1) * mask.numel())) ** 2) / 0.25**2))

        captums = captum.attr.Lime(net, SkLearnRidge(alpha=1.0), weight, replay(seen["masks"]))
        with as_it_comes():
            theirs = captums.attribute(
                image[None], target=target, feature_mask=segments[None, None], n_samples=n,
                perturbations_per_eval=50, return_input_shape=False,
            )  # fmt: skip
        ours, theirs = per_segment(maps[0], image, 20), theirs[0].double().numpy()
        assert len(ours) == len(theirs) == k
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * max(np.abs(theirs).max(), 1e-6))
        assert theirs.any() and spearmanr(ours, theirs).statistic > 0.999


@pytest.mark.parametrize("name,norm", NETS)
def test_kernel_shap_is_captums_with_the_same_superpixels_and_samples(pictures, name, norm):
    net, (x, y), n = tiny_net(name=name, norm=norm, size=32), (part[:2] for part in pictures), 202
    for image, target in zip(x, y):
        segments = superpixels(image, 20)
        k = int(segments.max()) + 1
        masks, weights = draw_coalitions(k, n, seed=3)
        assert len(masks) == n and (weights == 1).all()
        captums = captum.attr.KernelShap(net)
        captums.perturb_func = replay(masks)  # theirs weighs the two ends with a million, all others with one
        captums.similarity_func = lambda _input, _perturbed, mask, **_: 1e6 if mask.sum() in (0, mask.numel()) else 1.0
        with as_it_comes():
            theirs = captum.attr.Lime.attribute.__wrapped__(
                captums, inputs=image[None], target=target, feature_mask=segments[None, None], n_samples=n,
                perturbations_per_eval=50, return_input_shape=False,
            )[0].double().numpy()  # fmt: skip
        ours = attribution.kernel_shap(net, image[None], target[None], seed=3, n_samples=n, n_segments=20)
        ours = per_segment(ours[0], image, 20)
        np.testing.assert_allclose(ours, theirs, rtol=1e-2, atol=1e-2 * np.abs(theirs).max())
        assert spearmanr(ours, theirs).statistic > 0.99


def shapley_by_definition(value, k):
    """Mean over all orders of what each player adds."""
    found = np.zeros(k)
    for order in itertools.permutations(range(k)):
        shown = np.zeros(k, bool)
        for player in order:
            before = value(shown)
            shown[player] = True
            found[player] += value(shown) - before
    return found / math.factorial(k)


def test_kernel_shap_of_six_superpixels_is_exact(monkeypatch):
    net, (x, y) = tiny_net(), batch(1)
    segments = torch.arange(16).div(6, rounding_mode="floor")[:, None] * 2 + (torch.arange(16) >= 8)[None]
    assert segments.unique().tolist() == list(range(6))
    monkeypatch.setattr(lime_shap, "superpixels", lambda image, n: segments)

    def value(shown):
        keep = torch.from_numpy(shown)[segments]
        return net(x * keep)[0, y[0]].item()

    exact = shapley_by_definition(value, 6)
    ours = attribution.kernel_shap(net, x, y, n_samples=64, n_segments=6)
    found = np.array([float(ours[0, 0][segments == k][0]) for k in range(6)])
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.sum(), value(np.ones(6, bool)) - value(np.zeros(6, bool)), rtol=1e-4)


def test_sampled_coalitions_come_near_the_exact_values(pictures):
    net, (x, y) = tiny_net(size=32), (pictures[0][:1], pictures[1][:1])
    k = int(superpixels(x[0], 16).max()) + 1
    assert 8 < k < 14
    exact = attribution.kernel_shap(net, x, y, n_samples=2**k, n_segments=16)
    errors = []
    for n in (40, 2**k - 1):
        sampled = attribution.kernel_shap(net, x, y, n_samples=n, n_segments=16)
        errors.append(((sampled - exact).norm() / exact.norm()).item())
    assert errors[1] < min(0.2, errors[0])


@pytest.mark.parametrize("k,n", [(3, 8), (6, 64), (12, 100), (12, 101), (2, 4)])
def test_coalitions(k, n):
    masks, weights = draw_coalitions(k, n, seed=0)
    assert not masks[0].any() and masks[1].all() and len(masks) == len(weights) + 2 <= n
    assert (masks[2:].any(1) & ~masks[2:].all(1)).all()
    if 2**k > n:
        pairs = masks[2:][: 2 * (len(weights) // 2)].reshape(-1, 2, k)
        assert (pairs[:, 0] ^ pairs[:, 1]).all()
        assert len(masks) == n


def test_sizes_of_coalitions_follow_the_shapley_kernel():
    k, n = 16, 20_002  # 2^16 coalitions are more than n
    masks, _ = draw_coalitions(k, n, seed=0)
    found = np.bincount(masks[2:].sum(1), minlength=k + 1)[1:k] / (n - 2)
    chance = 1 / (np.arange(1, k) * (k - np.arange(1, k)))
    np.testing.assert_allclose(found, chance / chance.sum(), atol=4 * np.sqrt(0.25 / (n / 2)))


def test_a_linear_model_gives_its_own_contributions(pictures, monkeypatch):
    """For a linear network, LIME without penalty and KernelSHAP both give each superpixel's part of the logit."""
    monkeypatch.setattr(lime_shap, "PENALTY", 1e-9)
    x, y = pictures[0][:2], pictures[1][:2]
    net = tiny_net(name="mlp", activation="none", size=32)
    weight = attribution.input_gradient(net, x, y)
    for image, target, w in zip(x, y, weight):
        segments = superpixels(image, 12)
        parts = np.array([float((w * image)[:, segments == k].sum()) for k in range(int(segments.max()) + 1)])
        for maps in (
            attribution.kernel_shap(net, image[None], target[None], n_samples=200, n_segments=12),
            attribution.lime(net, image[None], target[None], n_samples=200, n_segments=12),
        ):
            np.testing.assert_allclose(per_segment(maps[0], image, 12), parts, rtol=1e-2, atol=1e-4)


def test_superpixels_are_made_once_per_image_and_shared(pictures, monkeypatch):
    lime_shap._segments.clear()
    calls, slic = [], segmentation.slic
    monkeypatch.setattr(segmentation, "slic", lambda *args, **options: calls.append(1) or slic(*args, **options))
    x, y = pictures
    for seed in range(3):
        net = tiny_net(seed, size=32)
        attribution.lime(net, x, y, n_samples=8, n_segments=10)
        attribution.kernel_shap(net, x, y, n_samples=40, n_segments=10)
    assert len(calls) == len(x)


@pytest.mark.parametrize("channels", [1, 3])
def test_superpixels_cover_the_image_and_are_forgotten_in_time(channels, monkeypatch):
    x = batch(3, 32)[0][:, :channels]
    for image in (*x, torch.zeros(channels, 32, 32)):
        labels = superpixels(image, 16)
        assert labels.shape == (32, 32) and labels.unique().tolist() == list(range(int(labels.max()) + 1))
    monkeypatch.setattr(lime_shap, "KEPT", 2 * 32**2)
    superpixels(x[0] + 1, 16)
    assert len(lime_shap._segments) == 2


def test_one_superpixel_takes_all(monkeypatch):
    net, (x, y) = tiny_net(), batch(1)
    monkeypatch.setattr(lime_shap, "superpixels", lambda image, n: torch.zeros(16, 16, dtype=torch.int64))
    ours = attribution.kernel_shap(net, x, y, n_samples=8)
    expected = (net(x) - net(torch.zeros_like(x)))[0, y[0]]
    torch.testing.assert_close(ours, expected.detach().expand_as(ours))


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, x):
        self.batches.append(len(x))
        return x.flatten(1)[:, :10]


@pytest.mark.parametrize("method", ["lime", "kernel_shap"])
def test_perturbations_go_through_the_network_in_large_batches(pictures, method):
    net = Counting().eval()
    getattr(attribution, method)(net, *(part[:2] for part in pictures), n_samples=300, n_segments=20, batch_size=100)
    assert net.batches == [1, 2, 1] + 6 * [100], "three passes look at the model"


def test_as_many_superpixels_as_pixels_are_the_pixels():
    assert torch.equal(lime_shap.superpixels(torch.zeros(3, 4, 6), 24), torch.arange(24).view(4, 6))


def test_superpixels_of_two_channels_are_those_of_their_mean():
    picture = batch(1, 32)[0][0, :2]
    assert torch.equal(superpixels(picture, 8), superpixels(picture.mean(0, keepdim=True), 8))


def test_superpixels_of_a_grey_picture_keep_to_its_edges():
    edge = torch.zeros(1, 32, 32)
    edge[:, :, 13:] = 1
    for n in (8, 16, 50):
        segments = superpixels(edge, n)
        assert not set(segments[:, :13].unique().tolist()) & set(segments[:, 13:].unique().tolist())
        assert torch.equal(segments, superpixels(edge.expand(3, -1, -1), n))


@pytest.mark.parametrize("k, few, enough", [(29, 50, 70), (50, 100, 110)])
def test_samples_that_cannot_tell_superpixels_apart_are_too_few(k, few, enough):
    values = np.random.default_rng(0).standard_normal(k)
    with pytest.raises(ValueError, match=f"{few} samples cannot tell {k} superpixels apart"):
        lime_shap.draw_coalitions(k, few, 0)
    masks, weights = lime_shap.draw_coalitions(k, enough, 0)
    np.testing.assert_allclose(
        lime_shap.fit_kernel_shap(masks.astype(float), masks @ values, weights), values, atol=1e-9
    )
