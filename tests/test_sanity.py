"""Sanity checks: what must hold of similarities before and after a break."""

import numpy as np
import pytest
import torch
from conftest import batch, tiny_net
from scipy import stats

from saliency_lib import attribution, randomization, similarity
from saliency_lib.quality import sanity

METHODS = {"input_gradient": attribution.input_gradient, "smoothgrad": attribution.smoothgrad}


@pytest.fixture(scope="module")
def networks():
    return [tiny_net(seed=k) for k in range(3)]


def test_networks_that_are_not_broken_keep_their_maps(networks):
    x, y = batch(2)
    own = sanity.maps_of(METHODS, networks, x, y, [5, 6, 7])
    assert torch.equal(own["smoothgrad"][1], attribution.smoothgrad(networks[1], x, y, seed=6))
    copies = [[net, net] for net in networks]
    found = sanity.measured(METHODS, own, copies, x, y, lambda k, step: 5 + k, ["rank correlation", "SSIM"])
    for alike in found["smoothgrad"].values():
        assert alike.steps.shape == (3, 2, 2) and alike.pairs.shape == (3, 3, 2) and alike.neighbours.shape == (3, 2)
        np.testing.assert_allclose(alike.steps, 1)
        assert alike.after(2) == alike.after(-1) == pytest.approx((1, 1, 1))
        assert alike.drop(1).value == pytest.approx(alike.two_networks.value - 1)
        levels = alike.two_networks.value, alike.two_images.value
        assert alike.means() == pytest.approx([1, 1, np.nan, *levels], nan_ok=True)


def test_a_step_is_compared_with_the_map_of_its_copy(networks):
    x, y = batch(2)
    copies = [[copied for _, copied in randomization.cascading(net, images=x)] for net in networks]
    own = sanity.maps_of(METHODS, networks, x, y, [0, 0, 0])
    found = sanity.along(METHODS, own, copies, x, y, lambda k, step: 10 * k + step, ["SSIM"])["smoothgrad"]["SSIM"]
    broken = attribution.smoothgrad(copies[2][1], x, y, seed=22)
    np.testing.assert_array_equal(found[2, 1], similarity.compare(own["smoothgrad"][2], broken)["SSIM"])


def test_means_and_drops_leave_a_network_out_together_with_its_partner():
    rng = np.random.default_rng(0)
    pairs = rng.random((4, 4, 5))
    pairs[range(4), range(4)] = np.nan
    assert sanity.mean(pairs).value == pytest.approx(np.nanmean(pairs)) and sanity.mean(pairs).n == 4
    others = rng.random((4, 3, 5))
    for left in (others, others[:, 0]):
        found, over_images = sanity.drop(pairs, left), sanity.drop(pairs, left, over="images")
        assert found.value == pytest.approx(np.nanmean(pairs) - left.mean()) == pytest.approx(over_images.value)
        assert (found.n, over_images.n) == (4, 5)
    assert sanity.drop(pairs, pairs) == (0, 0, 0)


@pytest.mark.parametrize(("n_networks", "n_others"), [(6, 3), (3, 6), (6, 7), (4, 4)])
def test_intervals_of_networks_and_others_hold_the_truth(n_networks, n_others):
    rng, held, halves = np.random.default_rng(0), [], []
    for _ in range(400):
        networks, others = rng.normal(size=(n_networks, 1, 1)), rng.normal(size=(1, n_others, 1))
        found = sanity.mean(networks + others + rng.normal(size=(n_networks, n_others, 4)))
        held.append(found.low <= 0 <= found.high)
        halves.append((found.high - found.low) / 2)
    assert np.mean(held) > 0.92, "95 % of intervals, less three times their chance of 400"
    most = stats.t.ppf(0.975, min(n_networks, n_others) - 1) * np.sqrt(1 / n_networks + 1 / n_others)
    assert np.mean(halves) < 1.1 * most


def test_tests_correspond_within_methods_or_between_them():
    rng = np.random.default_rng(0)
    one = rng.random((5, 3, 4)) / 100 + np.arange(4)
    shifted = one + rng.random((5, 3, 4)) / 100 + np.array([0, 50, -50])[:, None]
    assert sanity.correspondence(one, shifted).value > 0.999 > sanity.correspondence(one, shifted, within=False).value
    assert sanity.correspondence(one, -shifted).value < -0.999


def test_neighbours_are_the_maps_of_two_images_by_one_network():
    networks, (x, y) = [tiny_net(seed=k) for k in range(2)], batch(3)
    methods = {"m": attribution.input_gradient}
    own = sanity.maps_of(methods, networks, x, y, [0, 0])
    found = sanity.measured(methods, own, [[n] for n in networks], x, y, lambda k, step: 0, ["SSIM"])["m"]["SSIM"]
    for maps, neighbours in zip(own["m"], found.neighbours):
        np.testing.assert_allclose(neighbours, similarity.compare(maps, maps[[2, 0, 1]], ["SSIM"])["SSIM"])


def test_all_others_count_also_where_there_are_more_than_networks():
    values = np.random.default_rng(0).random((3, 5, 4))
    assert sanity.mean(values).value == pytest.approx(values.mean())
