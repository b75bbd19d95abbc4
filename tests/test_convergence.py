"""Norms of some members' maps are those of their moments, and halves agree where they must."""

import numpy as np
import pytest
import torch
from scipy import stats

from saliency_lib import convergence, snr


def maps(members, images=3, signal=0.0):
    draw = torch.Generator().manual_seed(0)
    return signal * torch.randn(images, 1, 8, 8, generator=draw) + torch.randn(members, images, 1, 8, 8, generator=draw)


def test_norms_by_inner_products_are_those_of_the_maps():
    members, chosen = maps(6), torch.tensor([[1, 1, 0, 0, 0, 0], [0, 1, 1, 0, 1, 1]]).double()
    found = convergence.norms(convergence.inner_products(members), chosen)
    for k, some in enumerate(([0, 1], [1, 2, 4, 5])):
        powers = snr.measure_maps(members[some]).value
        torch.testing.assert_close(found[:, k], torch.stack([powers.mean, powers.noise]).sqrt())


def test_halves_agree_where_signal_is_strong_and_where_nothing_is_asked():
    clear = convergence.settled(maps(8, signal=100.0))
    assert clear["‖μ‖"] == (1, 1, 1) and clear["‖σ‖"].value > 0.5
    few = convergence.settled(maps(8))
    assert 0 < few["‖μ‖"].value < 0.6 and few["‖μ‖"].n == 8
    assert convergence.settled(maps(8), within=10.0) == {"‖μ‖": (1, 1, 1), "‖σ‖": (1, 1, 1)}
    assert few == convergence.settled(maps(8)), "the same ways"


@pytest.mark.parametrize("n", [16, 22])
def test_the_interval_of_what_has_settled_is_not_far_wider_than_chance(n):
    draw, found = torch.Generator().manual_seed(0), []
    shared = torch.randn(20, 3, 4, 4, generator=draw)
    for _ in range(40):
        members = shared + 1.2 * torch.randn(n, 20, 3, 4, 4, generator=draw)
        found.append(convergence.settled(members, ways=50))
    for norm in found[0]:
        shares = [of[norm] for of in found]
        expected = stats.t.ppf(0.975, shares[0].df) * np.std([share.value for share in shares])
        assert expected < np.mean([share.high - share.value for share in shares]) < 2.5 * expected


def test_three_members_have_no_halves():
    assert not any(share.bounded for share in convergence.settled(maps(3)).values())


def test_the_mean_of_k_maps_has_root_k_times_the_ratio_of_one():
    law = convergence.of_groups(maps(64, images=40, signal=1.0), [1, 2, 4, 8])
    roots = np.sqrt([1, 2, 4, 8])
    np.testing.assert_allclose(law.value, [roots, 1 / roots], rtol=0.1)
    assert law.sizes == (8,) * 8 and law.value[1, 0] == 1


def test_the_ratio_of_mean_maps_is_debiased():
    law = convergence.of_groups(maps(32, images=400), [1, 8])
    assert law.value[0].max() < 0.15, "of pure noise; the plug-in ratio of four means would be 1 / 2"


def test_halves_of_an_odd_number_have_as_many_members_each():
    pure = torch.randn(5, 4, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    assert convergence.settled(pure, ways=20)["‖μ‖"].value == 1, "means of two and of three differ by a root of 1.5"
