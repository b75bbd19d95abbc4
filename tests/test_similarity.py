"""Similarity of maps: equal to scipy and scikit-image, and what must hold of any measure."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, pearsonr, spearmanr
from skimage.feature import hog as their_hog
from skimage.metrics import structural_similarity

from saliency_lib import similarity
from saliency_lib.similarity import hog, pearson, spearman, ssim, unit, with_the_others


def maps(seed=0, n=4, c=3, size=32, ties=False):
    values = torch.randn(n, c, size, size, generator=torch.Generator().manual_seed(seed))
    return values.mul(3).round() if ties else values


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_spearman_is_scipys(absolute, ties):
    a, b = maps(0, ties=ties), maps(1, ties=ties) + maps(0, ties=ties)
    change = np.abs if absolute else np.asarray
    theirs = [spearmanr(change(x.numpy().ravel()), change(y.numpy().ravel())).statistic for x, y in zip(a, b)]
    np.testing.assert_allclose(spearman(a, b, absolute=absolute).numpy(), theirs, atol=1e-12)


def test_pearson_is_scipys():
    a, b = maps(0), maps(1) + maps(0)
    theirs = [pearsonr(x.double().numpy().ravel(), y.double().numpy().ravel()).statistic for x, y in zip(a, b)]
    np.testing.assert_allclose(pearson(a, b).numpy(), theirs, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("win_size", [3, 5, 7])
def test_ssim_is_scikit_images(channels, win_size):
    a, b = maps(0, c=channels), 0.5 * maps(1, c=channels) + maps(0, c=channels)
    theirs = [
        structural_similarity(x.double().numpy(), y.double().numpy(), data_range=2, win_size=win_size, channel_axis=0)
        for x, y in zip(unit(a), unit(b))
    ]
    np.testing.assert_allclose(ssim(a, b, win_size=win_size).numpy(), theirs, atol=1e-6)
    raw = [
        structural_similarity(x.double().numpy(), y.double().numpy(), data_range=6, win_size=win_size, channel_axis=0)
        for x, y in zip(a, b)
    ]
    ours = ssim(a, b, data_range=6.0, win_size=win_size, normalise=False)
    np.testing.assert_allclose(ours.numpy(), raw, atol=1e-9)


@pytest.mark.parametrize("size,cell", [(28, 4), (32, 4), (64, 8), (128, 16)])
def test_hog_is_the_correlation_of_scikit_images(size, cell):
    a, b = maps(0, 2, 1, size), maps(1, 2, 1, size) + maps(0, 2, 1, size)
    features = [[their_hog(m[0].double().numpy(), pixels_per_cell=(cell, cell)) for m in unit(x)] for x in (a, b)]
    theirs = [pearsonr(x, y).statistic for x, y in zip(*features)]
    np.testing.assert_allclose(hog(a, b).numpy(), theirs, atol=1e-5)
    assert similarity.hog_cell(299) == 16


@pytest.mark.parametrize("measure", [spearman, ssim, hog])
def test_a_map_is_entirely_like_itself_at_any_positive_scale(measure):
    a = maps()
    np.testing.assert_allclose(measure(a, a).numpy(), 1, atol=1e-9)
    np.testing.assert_allclose(measure(a, 7.5 * a).numpy(), 1, atol=1e-5)
    np.testing.assert_allclose(measure(a, maps(1)).numpy(), measure(maps(1), a).numpy(), atol=1e-9)


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_signs(seed):
    a, b = maps(seed, 2, 1, 12), maps(seed + 1, 2, 1, 12)
    np.testing.assert_allclose(spearman(a, -b).numpy(), -spearman(a, b).numpy(), atol=1e-12)
    np.testing.assert_allclose(spearman(a, -b, absolute=True).numpy(), spearman(a, b, absolute=True).numpy())
    assert (ssim(a, b).abs() <= 1).all()


def test_one_value_per_image_whatever_the_batch():
    a, b = maps(0), maps(1)
    for measure in (spearman, ssim, hog):
        alone = torch.cat([measure(x[None], y[None]) for x, y in zip(a, b)])
        torch.testing.assert_close(measure(a, b), alone)


def test_constant_maps():
    flat, a = torch.zeros(2, 1, 16, 16), maps(0, 2, 1, 16)
    assert spearman(flat, a).isnan().all() and (unit(flat) == 0).all()
    np.testing.assert_allclose(ssim(flat, flat).numpy(), 1)
    assert ssim(flat, a).isfinite().all()


def test_bad_input_gets_a_sentence():
    a = maps()
    for call, message in (
        (lambda: spearman(a, a[:2]), r"expected two sets of maps .* not \(4, 3, 32, 32\) and \(2, 3"),
        (lambda: ssim(a, a, win_size=4), "odd, and 3 to 32 pixels wide, not 4"),
        (lambda: ssim(a, a, win_size=33), "odd, and 3 to 32"),
        (lambda: ssim(a, a, win_size=1), "odd, and 3 to 32"),
        (lambda: hog(a, a, cell=0), "no 3x3 cells of 0"),
        (lambda: hog(a, a, cell=16), "no 3x3 cells of 16 pixels; use cell=10 or less"),
        (lambda: with_the_others(ssim, a[None]), "at least two members, not 1"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_with_the_others_compares_with_the_mean_of_the_rest():
    members = torch.stack([maps(k) for k in range(3)])
    found = with_the_others(pearson, members)
    assert found.shape == (3, 4)
    torch.testing.assert_close(found[1], pearson(members[1], (members[0] + members[2]) / 2))


def test_ssim_of_pairs_is_ssim_of_each_pair():
    members = torch.stack([maps(k) + maps(9) for k in range(3)])
    for step in (0, 1):
        matrix = similarity.ssim_of_pairs(members, step)
        for i, j in ((1, 0), (2, 0), (2, 1)):
            expected = ssim(members[i], members[j].roll(-step, 0)).mean()
            torch.testing.assert_close(matrix[i, j], expected)
            assert matrix[j, i] == matrix[i, j] and matrix[i, i] == 1


def test_areas_overlap_by_what_both_mark():
    members = torch.zeros(3, 1, 1, 2, 10)
    for member, marked in enumerate(([0, 1], [1, 2], [18, 19])):
        members[member].view(-1)[marked] = torch.tensor([-2.0, 1.0])
    expected = torch.tensor([[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]])
    torch.testing.assert_close(similarity.overlaps(members)[0], expected)


def test_an_area_that_would_be_the_whole_map_is_refused():
    with pytest.raises(ValueError, match="a share of 0.1 of 1 pixels is all of them"):
        similarity.overlaps(torch.ones(2, 3, 1, 1, 1))


def test_random_areas_overlap_by_a_known_share():
    members = torch.stack([maps(k, 200) for k in range(2)])
    assert similarity.overlaps(members)[:, 0, 1].mean().item() == pytest.approx(1 / 19, rel=0.1)
    assert similarity.overlaps(members, 0.5)[:, 0, 1].mean().item() == pytest.approx(1 / 3, rel=0.05)


def test_least_alike_never_pairs_a_member_with_itself_and_sees_signs_of_constant_maps():
    same = maps(0, 2)
    assert all(i != j for i, j in similarity.least_alike(torch.stack([same, 2 * same, same])))
    flat = torch.tensor([0.3, 0.7, -0.2, 0.1]).view(4, 1, 1, 1, 1).expand(4, 5, 1, 8, 8)
    noisy = flat * (1 + 1e-7 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(0)))
    assert all(2 in pair for pair in similarity.least_alike(noisy))


def test_least_alike_finds_the_pair_by_hand():
    same, other = maps(0, 2), maps(5, 2)
    members = torch.stack([same, same + 0.01 * other, -same, same])
    for i, j in similarity.least_alike(members):
        assert 2 in (i, j)


def random_masks(kind, n, size, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (n, 1, size, size)
    return (
        torch.randn(shape, generator=generator) if kind == "normal" else 2 * torch.rand(shape, generator=generator) - 1
    )


@pytest.mark.parametrize("kind", ["normal", "uniform"])
@pytest.mark.parametrize("measure", ["rank correlation", "absolute rank correlation"])
def test_ranks_of_random_masks_correlate_as_theory_has_it(measure, kind):
    n, size = 400, 12
    found = similarity.MEASURES[measure](random_masks(kind, n, size, 0), random_masks(kind, n, size, 1)).numpy()
    variance = 1 / (size**2 - 1)  # of Spearman's coefficient of independent values
    assert abs(found.mean()) < 4 * (variance / n) ** 0.5
    low, high = chi2.ppf([1e-4, 1 - 1e-4], n) / n
    assert low < (found**2).mean() / variance < high


def their_hog_correlation(a, b):
    return pearsonr(*(their_hog(m, pixels_per_cell=(4, 4)) for m in (a, b)))[0]


def their_ssim(a, b):
    return structural_similarity(a, b, data_range=2, win_size=5)


@pytest.mark.parametrize("kind", ["normal", "uniform"])
@pytest.mark.parametrize("ours,theirs", [(hog, their_hog_correlation), (ssim, their_ssim)])
def test_structure_of_random_masks_equals_a_simulation_at_the_same_size(ours, theirs, kind):
    """By other code and other draws, and so also where it is not zero."""
    n, size = 200, 32
    rng = np.random.default_rng(3)

    def mask():
        values = rng.standard_normal((size, size)) if kind == "normal" else rng.uniform(-1, 1, (size, size))
        return values / np.abs(values).max()

    simulated = [theirs(mask(), mask()) for _ in range(n)]
    found = ours(random_masks(kind, n, size, 0), random_masks(kind, n, size, 1)).numpy()
    assert abs(found.mean() - np.mean(simulated)) < 4 * ((np.var(simulated) + found.var()) / n) ** 0.5


def test_the_four_measures_are_of_summed_and_of_absolute_channels():
    a, b = maps(0), maps(1) + maps(0)
    four = {name: measure(a, b) for name, measure in similarity.MEASURES.items()}
    torch.testing.assert_close(four["rank correlation"], spearman(a.sum(1, True), b.sum(1, True)))
    torch.testing.assert_close(four["absolute rank correlation"], spearman(a.abs().sum(1, True), b.abs().sum(1, True)))
    torch.testing.assert_close(four["SSIM"], ssim(a.sum(1, True), b.sum(1, True)))
    torch.testing.assert_close(four["HOG"], hog(a.sum(1, True), b.sum(1, True)))


def test_compare_and_pairs_count_constant_maps_as_unlike():
    a, b = maps(0), maps(1) + maps(0)
    b[1] = 0.0
    found = similarity.compare(a, b, ["rank correlation", "SSIM"])
    assert list(found) == ["rank correlation", "SSIM"] and found["rank correlation"][1] == found["SSIM"][1] == 0
    assert found["rank correlation"][0] == spearman(a.sum(1, True), b.sum(1, True))[0].item() != 0
    pairs = similarity.of_pairs([a, b, maps(2)], "rank correlation")
    assert pairs.shape == (3, 3, 4) and np.isnan([pairs[k, k] for k in range(3)]).all()
    assert (pairs[0, 1] == found["rank correlation"]).all() and (pairs[1, 0] == pairs[0, 1]).all()
    others = similarity.of_pairs([a, b, maps(2)], "rank correlation", [b, a])
    assert others.shape == (3, 2, 4) and (others[2] == pairs[2, [1, 0]]).all() and (others[0, 0] == pairs[0, 1]).all()


def test_compare_refuses_what_is_no_map_or_no_measure():
    a = maps(0)
    with pytest.raises(ValueError, match="unknown measure 'ssim'"):
        similarity.compare(a, a, ["ssim"])
    with pytest.raises(ValueError, match="unknown measure 'S'"):
        similarity.compare(a, a, "SSIM")
    with pytest.raises(ValueError, match="not finite"):
        similarity.compare(a * torch.nan, a)


def test_prepared_maps_compare_as_maps_do_and_are_prepared_once():
    a, b, c = maps(0), maps(1) + maps(0), maps(2)
    ready, calls = similarity.Prepared(a), []
    for other in (b, c):
        plain, fast = similarity.compare(a, other), similarity.compare(ready, similarity.Prepared(other))
        assert all((plain[name] == fast[name]).all() for name in similarity.MEASURES)
        calls.append({name: id(made) for name, made in ready.made.items()})
    assert calls[0] == calls[1] and set(calls[0]) == set(similarity.MEASURES)
    with pytest.raises(ValueError, match="expected two sets of maps"):
        similarity.compare(ready, b[:2])


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.8, 0.9])
def test_an_area_has_its_share_of_the_pixels(share):
    maps = torch.arange(10.0).view(1, 1, 1, 2, 5).expand(2, -1, -1, -1, -1).clone()
    maps[1] = maps[1].flip(-2, -1)
    marked = round(10 * share)
    both = max(0, 2 * marked - 10)  # the strongest of the one are the weakest of the other
    assert similarity.overlaps(maps, share)[0, 0, 1].item() == pytest.approx(both / (2 * marked - both))


@pytest.mark.usefixtures("chance")
def test_maps_that_vary_in_single_channels_only_are_like_none():
    z = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    for m in (torch.rand(2, 3, 1, 1).expand(2, 3, 16, 16), torch.cat([z, -z], 1)):
        found = similarity.compare(m, m)
        assert (found["SSIM"] == 0).all() and (found["rank correlation"] == 0).all()
    assert similarity.compare(m, m)["absolute rank correlation"] == pytest.approx([1, 1])


@pytest.mark.usefixtures("chance")
def test_a_constant_has_no_correlation_whatever_it_is_rounded_to():
    assert similarity.pearson(torch.full((1, 1000), 0.1).double(), torch.rand(1, 1000)).isnan()
