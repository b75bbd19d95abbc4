"""The criteria of Bykov et al., Tab. 1, of all kinds of noise at once: the same as one by one."""

import pytest
import torch
from conftest import batch, tiny_net

from saliency_lib import attribution, noisegrad, quality
from saliency_lib.channels import abs_sum
from saliency_lib.quality.criteria import Noise, criteria, localisation, noisy_maps, robustness
from saliency_lib.runtime.seeds import WEIGHTS, derive

SIGMA = 0.3


@pytest.fixture
def explained():
    """A network, images, targets and masks."""
    masks = torch.zeros(5, 16, 16, dtype=torch.bool)
    masks[:, 4:9, 6:12] = True
    return tiny_net(), *batch(), masks


@pytest.mark.parametrize(
    "noise,method",
    [
        (Noise(), "input_gradient"),
        (Noise(weights=SIGMA, networks=3), noisegrad.noisegrad("input_gradient", SIGMA, 3)),
        (Noise(input=0.2, inputs=4), attribution.smooth(attribution.input_gradient, 0.2, 4)),
        (Noise(SIGMA, 0.2, 3, 2), noisegrad.fusiongrad("input_gradient", SIGMA, 0.2, 3, 2)),
    ],
    ids=["plain", "NoiseGrad", "SmoothGrad", "FusionGrad"],
)
def test_every_kind_of_noise_is_a_case_of_one(noise, method, explained):
    net, x, y, masks = explained
    maps = attribution.attribute(method, net, x, y, seed=5)
    assert torch.equal(noise.of("input_gradient")(net, x, y, seed=5), maps)
    expected = quality.relevance_rank_accuracy(abs_sum(maps), masks)
    assert torch.equal(localisation(net, x, y, masks, noise=noise, seed=5), expected)


def test_criteria_are_those_of_each_variant_alone(explained):
    net, x, y, masks = explained
    found = criteria(net, x, y, masks, sigma=SIGMA, n=2, n_nudges=2, n_runs=8, seed=3)
    assert found.shape == (5, 4, 5) and found.dtype == torch.float64
    methods = noisegrad.variants("input_gradient", SIGMA, n=2)
    for k, method in enumerate(methods.values()):
        maps = abs_sum(method(net, x, y, seed=3))
        alone = [
            quality.relevance_rank_accuracy(maps, masks),
            quality.faithfulness_correlation(net, x, y, maps, n_runs=8, seed=3),
            quality.max_sensitivity(method, net, x, y, n_samples=2, seed=3),
            quality.gini(maps),
        ]
        torch.testing.assert_close(found[:4, k], torch.stack(alone), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[4, 0], found[0, 0])  # of one map, both readings are one
    assert not torch.equal(found[4, 2], found[0, 2])


def test_absolute_values_are_taken_in_every_draw(explained):
    net, x, y, _ = explained
    _, absolute_first = noisy_maps(net, x, y, sigma=SIGMA, n=3, seed=3)
    total, generator = 0.0, torch.Generator().manual_seed(derive(3, WEIGHTS))
    for _ in range(3):
        with noisegrad.perturbed(net, SIGMA, generator):
            total = total + abs_sum(attribution.input_gradient(net, x, y))
    torch.testing.assert_close(absolute_first[2], total / 3, atol=1e-5, rtol=1e-4)


def test_robustness_is_max_sensitivity_by_each_setting(explained):
    net, x, y, masks = explained
    settings = [{"radius": 0.02}, {"redraw": True}]
    found = robustness(net, x, y, masks, settings=settings, sigma=SIGMA, n=2, n_nudges=2, seed=3)
    assert found.shape == (2, 4, 5)
    methods = noisegrad.variants("input_gradient", SIGMA, n=2)
    for values, setting in zip(found, settings):
        for mine, method in zip(values, methods.values()):
            alone = quality.max_sensitivity(method, net, x, y, n_samples=2, seed=3, **setting)
            torch.testing.assert_close(mine, alone, atol=1e-3, rtol=1e-3)
