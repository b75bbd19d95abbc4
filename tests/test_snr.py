"""Signal and noise: streaming equals storing, estimates are unbiased, intervals cover."""

import math
import operator

import numpy as np
import pytest
import torch
from conftest import noise, tiny_net
from hypothesis import given
from hypothesis import strategies as st

from saliency_lib import attribution, snr
from saliency_lib.book.rows import mean_log
from saliency_lib.estimates import Replicates
from saliency_lib.snr import Moments


def stream(maps):
    moments = Moments()
    for m in maps:
        moments.update(m)
    return moments


def synthetic(ratio, members, images=2000, pixels=64, seed=0):
    """Maps, (members, images, 1, 1, pixels), with noise of unit variance and ||mu|| / ||sigma|| = ratio."""
    mu = noise(images, 1, 1, pixels, seed=seed + 1)
    mu = mu / mu.flatten(1).norm(dim=1).view(-1, 1, 1, 1) * ratio * math.sqrt(pixels)
    return mu + noise(members, images, 1, 1, pixels, seed=seed)


@given(st.integers(2, 12), st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_streaming_equals_storing(n, offset, scale, seed):
    maps = offset + scale * noise(n, 3, 2, 4, 4, seed=seed)
    moments = stream(maps)
    torch.testing.assert_close(moments.mean, maps.mean(0))
    torch.testing.assert_close(moments.variance, maps.var(0), rtol=1e-6, atol=1e-9 * (1 + offset**2))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.integers(0, 99))
def test_merging_any_partition_equals_one_stream_and_leaves_the_parts(sizes, seed):
    parts = [stream(noise(n, 2, 1, 3, 3, seed=seed + i) + 10) for i, n in enumerate(sizes)]
    before = [(p.n, p.mean.clone(), p.m2.clone()) for p in parts]
    merged, n = Moments(), sum(sizes)
    for part in parts:
        merged.merge(part)
    assert merged.n == n
    for (count, mean, m2), part in zip(before, parts):
        assert part.n == count and torch.equal(mean, part.mean) and torch.equal(m2, part.m2)
    if n:
        whole = stream([m for i, k in enumerate(sizes) for m in noise(k, 2, 1, 3, 3, seed=seed + i) + 10])
        torch.testing.assert_close(merged.mean, whole.mean)
        torch.testing.assert_close(merged.m2, whole.m2, atol=1e-9, rtol=1e-9)


def test_taking_a_part_away_undoes_merging():
    a, b = stream(noise(4, 2, 1, 3, 3)), stream(noise(3, 2, 1, 3, 3, seed=1))
    rest = Moments().merge(a).merge(b).without(b)
    assert rest.n == 4
    torch.testing.assert_close(rest.mean, a.mean)
    torch.testing.assert_close(rest.m2, a.m2)
    assert a.without(a).n == 0
    torch.testing.assert_close(a.without(Moments()).mean, a.mean)


@pytest.mark.parametrize("ratio", [0, 0.1, 0.6, 1, 3])
@pytest.mark.parametrize("n", [2, 3, 5, 10, 30, 100])
def test_signal_and_noise_are_unbiased(ratio, n):
    """Means over images lie within 4 of their standard errors of the true ||mu||^2 and ||sigma||^2."""
    images = 4000 if n < 30 else 600
    p = snr.powers(stream(synthetic(ratio, n, images)))
    for found, true in ((p.signal, 64 * ratio**2), (p.noise, 64.0)):
        assert (found.mean() - true).abs() < 4 * found.std() / math.sqrt(images)


@pytest.mark.parametrize("n", [2, 8, 30, 100])
def test_pure_noise_scores_the_floor_and_debiased_nothing(n):
    p = snr.powers(stream(synthetic(0, n, 500, pixels=3000)))
    assert snr.plugin_mean(p) == pytest.approx(1 / math.sqrt(n), rel=0.02)
    assert snr.debiased_mean(p) < 0.15 / math.sqrt(n)
    assert (snr.snr_debiased(p) == 0).double().mean() == pytest.approx(0.5, abs=0.1), "half of the images are clipped"


@pytest.mark.parametrize("ratio", [0.3, 1, 3])
def test_the_debiased_ratio_does_not_depend_on_n(ratio):
    for n in (3, 8, 50):
        p = snr.powers(stream(synthetic(ratio, n, 300, pixels=400)))
        assert snr.debiased_mean(p) == pytest.approx(ratio, rel=0.05)
        assert snr.plugin_mean(p) == pytest.approx(math.sqrt(ratio**2 + 1 / n), rel=0.05)


def test_snr_is_equation_5():
    maps = noise(5, 7, 3, 4, 4)
    expected = maps.mean(0).flatten(1).norm(dim=1) / maps.std(0).flatten(1).norm(dim=1)
    torch.testing.assert_close(snr.snr(stream(maps)), expected)


@given(st.floats(1e-6, 1e6))
def test_snr_does_not_depend_on_the_scale_of_maps(scale):
    maps = noise(4, 2, 1, 3, 3)
    torch.testing.assert_close(snr.snr_debiased(stream(maps * scale)), snr.snr_debiased(stream(maps)))


def test_non_negative_maps_inflate_the_ratio_as_stated():
    """Pure noise: 0.68 after a ReLU, 1.32 after an absolute value (closed forms of the half-normal)."""
    noisy = noise(40, 50, 1, 1, 4000)
    relu, absolute = (snr.debiased_mean(snr.powers(stream(f(noisy)))) for f in (torch.relu, torch.abs))
    assert relu == pytest.approx(math.sqrt(1 / (math.pi - 1)), rel=0.02)
    assert absolute == pytest.approx(math.sqrt(2 / (math.pi - 2)), rel=0.02)


def test_jackknife_interval_covers_the_true_ratio():
    covered, runs = 0, 200
    for seed in range(runs):
        m = snr.measure_maps(synthetic(0.6, 12, images=1, pixels=800, seed=7 * seed))
        e = m.debiased()
        covered += e.low <= 0.6 <= e.high
    assert 0.90 < covered / runs <= 1


@pytest.mark.parametrize("n,groups", [(2, 0), (3, 3), (8, 8), (13, 10), (30, 10)])
def test_groups_of_the_jackknife(n, groups):
    m = snr.measure_maps(noise(n, 2, 1, 3, 3))
    assert len(m.without) == groups == len(m.sizes) and (groups == 0 or sum(m.sizes) == n)
    left = noise(n, 2, 1, 3, 3)[torch.arange(n) % max(groups, 1) != 0]
    if groups:
        torch.testing.assert_close(m.without[0].mean, left.mean(0).flatten(1).square().sum(1))
        torch.testing.assert_close(m.without[0].noise, left.var(0).flatten(1).sum(1))


def test_measuring_networks_equals_measuring_their_maps_whatever_the_chunk(monkeypatch):
    nets = [tiny_net(i) for i in range(3)]
    x, y = noise(7, 3, 16, 16).float(), torch.arange(7)
    maps = torch.stack([attribution.input_gradient(net, x, y) for net in nets])
    whole = snr.measure_maps(maps)
    for chunk in (1, 3, 7):
        monkeypatch.setattr(snr, "CHUNK_VALUES", chunk * x[0].numel())
        m = snr.measure("input_gradient", nets, x, y)
        torch.testing.assert_close(m.value.mean, whole.value.mean)
        torch.testing.assert_close(m.without[1].noise, whole.without[1].noise)
        assert m.estimate(snr.plugin_mean).low == pytest.approx(whole.estimate(snr.plugin_mean).low)


def test_the_same_network_twice_has_no_noise():
    net, x, y = tiny_net(), noise(2, 3, 16, 16).float(), torch.tensor([0, 1])
    m = snr.measure("input_gradient", [net, net], x, y)
    assert torch.isinf(snr.snr(m.value)).all() and (m.value.noise == 0).all() and m.clipped == 0


@given(st.floats(0.01, 10), st.floats(0.01, 10))
def test_members_needed_is_the_least_number_that_reaches_the_goal(one, goal):
    n = snr.members_needed(one, goal)
    assert one * math.sqrt(n) >= goal * (1 - 1e-6) and (n == 1 or one * math.sqrt(n - 1) < goal * (1 + 1e-6))


def test_members_needed_gives_the_papers_gains():
    assert snr.members_needed(1, math.sqrt(50)) == 50 and math.sqrt(50) == pytest.approx(7.07, abs=0.01)
    with pytest.raises(ValueError, match="never reaches 2"):
        snr.members_needed(0, 2)


def test_bad_input_gets_a_sentence():
    moments = stream(noise(1, 2, 1, 3, 3))
    with pytest.raises(ValueError, match="at least two members, not 1"):
        snr.snr(moments)
    with pytest.raises(ValueError, match=r"shape \(2, 1, 4, 4\) do not go with"):
        moments.update(noise(2, 1, 4, 4))
    with pytest.raises(ValueError, match="do not go with"):
        moments.merge(stream(noise(1, 3, 1, 3, 3)))
    with pytest.raises(ValueError, match="at least two members, not 1"):
        snr.measure("input_gradient", [tiny_net()], noise(1, 3, 16, 16).float(), torch.tensor([0]))


def test_debiased_intervals_clip_last_and_stay_open_when_unknown():
    pure = snr.measure_maps(synthetic(0, 8, images=20))
    e = pure.debiased()
    assert e.low == 0 and e.value == pytest.approx(snr.debiased_mean(pure.value)) and e.high > 0
    assert pure.estimate(snr.power_mean).low < 0
    assert snr.measure_maps(noise(2, 3, 1, 2, 2)).debiased().high == math.inf


def test_pure_noise_is_clipped_half_of_the_time():
    assert snr.measure_maps(synthetic(0, 8, images=2000)).clipped == pytest.approx(0.5, abs=0.05)


def test_a_published_number_loses_what_noise_adds():
    assert snr.debiased_number(0.5, 30) == pytest.approx((0.25 - 1 / 30) ** 0.5)
    assert snr.debiased_number(0.1, 30) == 0
    maps = torch.randn(30, 400, 1, 6, 6, generator=torch.Generator().manual_seed(0)) + 0.4
    measured = snr.measure_maps(maps)
    powers = measured.value
    assert snr.debiased_number(snr.plugin_mean(powers), 30) == pytest.approx(snr.debiased_mean(powers), rel=0.02)
    assert measured.corrected().value == snr.debiased_number(measured.plugin().value, 30)


def replicated(ratio, jitter=0.0, members=8, seed=0):
    """Replicates of a known squared SNR that scatter around it."""
    scatter = np.random.default_rng(seed).normal(0, jitter, members)
    return Replicates(ratio**2, tuple(ratio**2 * np.exp(scatter)), (1,) * members)


def relative(powers, above, below):
    """Of networks' SNR, as notebook 04 has it."""
    mean_above, mean_below = (mean_log(powers[name] for name in names) for names in (above, below))
    return mean_above.estimate(operator.sub, mean_below).map(np.exp)


def test_ratios_of_known_powers():
    powers = {name: replicated(value) for name, value in {"a": 2.0, "b": 8.0, "c": 1.0, "d": 2.0}.items()}
    assert relative(powers, "ab", "cd") == pytest.approx((math.sqrt(8),) * 3)
    assert mean_log([powers["a"], powers["b"]]).value == pytest.approx(math.log(4))


def test_the_interval_of_a_ratio_is_the_jackknife_of_its_logarithm():
    powers = {"a": replicated(2.0, 0.1, seed=1), "b": replicated(1.0, 0.1, seed=2)}
    value, low, high = relative(powers, "a", "b")
    logs = np.log(np.divide(powers["a"].without, powers["b"].without)) / 2
    pseudo = 8 * math.log(2) - 7 * logs
    half = 2.3646 * math.sqrt(np.sum((pseudo - (8 * math.log(2) - 7 * logs.mean())) ** 2) / 8 / 7)
    assert (math.log(high) - math.log(low)) / 2 == pytest.approx(half, rel=1e-3) and value == pytest.approx(2)


def test_noise_without_signal_gives_no_ratio_and_no_crash():
    powers = {"a": replicated(2.0), "b": replicated(2.0).map(lambda p: -p)}
    value, low, high = relative(powers, "a", "b")
    assert math.isnan(value) and (low, high) == (-math.inf, math.inf)


def test_an_image_whose_maps_are_all_zero_does_not_count():
    maps = noise(4, 6, 1, 3, 3)
    maps[:, 0] = 0
    for statistic in (snr.plugin_mean, snr.power_mean):
        rest = statistic(snr.powers(stream(maps[:, 1:])))
        assert statistic(snr.powers(stream(maps))) == pytest.approx(rest)


def test_as_many_members_as_are_announced():
    for n in (4, 6):
        with pytest.raises(ValueError, match="not the maps of 5 members"):
            snr.measure_maps(iter(torch.zeros(n, 3, 1, 8, 8)), 5)
