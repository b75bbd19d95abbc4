"""Controls beside a method's SNR: each by itself, and what noise and signal score in it."""

import math

import numpy as np
import pytest
import torch
from conftest import batch, tiny_net

from saliency_lib import controls, snr
from saliency_lib.controls import mismatch, shift
from saliency_lib.estimates import jackknife
from saliency_lib.similarity import pearson, ssim, with_the_others


def fixed(maps):
    """A method and an ensemble that give these maps, (members, images, c, h, w), whatever the images."""

    def method(model, images, targets, *, seed=0, batch_size=None):
        return maps[model][: len(images)]

    return method, list(range(len(maps)))


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_mismatch_gives_every_member_another_image():
    numbers = torch.arange(6).repeat(4, 1)[..., None]
    moved = mismatch(numbers)[..., 0]
    assert all(len(set(moved[:, j].tolist())) == 4 for j in range(6))
    assert all(sorted(row.tolist()) == list(range(6)) for row in moved)
    with pytest.raises(ValueError, match="4 members need as many different images, not 3"):
        mismatch(numbers[:, :3])


def test_shift_moves_each_map_around_the_edges():
    maps = noise(3, 5, 2, 6, 7)
    moved = shift(maps, 0)
    for before, after in zip(maps.flatten(0, 1), moved.flatten(0, 1)):
        assert any(torch.equal(before.roll((r, c), (1, 2)), after) for r in range(6) for c in range(7))
    assert torch.equal(moved, shift(maps, 0)) and not torch.equal(moved, shift(maps, 1))


def level_and_detail(level=1.0, everywhere=1.0, image=1.0, members=6, images=40, strength=1.0):
    """Maps with a shared level, a part shared by all images and a part of each image, and noise of power one."""
    detail = noise(1, images, 1, 16, 16, seed=1)
    common = noise(1, 1, 1, 16, 16, seed=2)
    detail, common = (m - m.mean((-2, -1), keepdim=True) for m in (detail, common))
    return strength * (level + everywhere * common + image * detail) + noise(members, images, 1, 16, 16)


def test_what_signal_and_noise_score():
    signal, x = noise(1, 12, 1, 16, 16, seed=1), torch.zeros(12, 1, 16, 16)
    found = controls.measure(*fixed(2 * signal + noise(6, 12, 1, 16, 16)), x, torch.zeros(12))
    assert abs(snr.debiased_mean(found.own.value) - 2) < 0.1
    for part in (found.mismatched, found.shifted):
        assert abs(snr.plugin_mean(part.value) - 6**-0.5) < 0.05
    half = controls.measure(*fixed(noise(6, 12, 1, 16, 16).abs()), x, torch.zeros(12))
    for part in (half.own, half.shifted, half.mismatched):  # noise without a sign: all three say the same
        assert abs(snr.debiased_mean(part.value) - 1.32) < 0.05
    signed = controls.measure(*fixed(noise(6, 12, 1, 16, 16)), x, torch.zeros(12))
    for part in (signed.absolute, signed.absolute_shifted):
        assert abs(snr.debiased_mean(part.value) - 1.32) < 0.05


@pytest.mark.parametrize("parts", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 1.0), (0.5, 0.5, 2.0)])
def test_level_and_what_is_the_same_everywhere_are_shares_of_the_signal(parts):
    maps = level_and_detail(*parts, strength=2.0)
    found = controls.measure(*fixed(maps), torch.zeros(40, 1, 16, 16), torch.zeros(40))
    level, everywhere, image = (p**2 for p in parts)
    total = level + everywhere + image
    assert abs(found.level.value - level / total) < 0.05
    assert abs(found.everywhere.value - (level + everywhere) / total) < 0.05
    for shown in (found.level.estimate(), found.everywhere.estimate()):
        assert shown.low <= shown.value <= shown.high and shown.n == 6


def test_what_is_the_same_everywhere_is_as_sure_as_its_interval_says():
    """Maps of few independent values, as of GradCAM at the top, whose noise is hardly known."""
    draw, shares = torch.Generator().manual_seed(0), []
    image = 1 + 0.5 * torch.randn(1, 30, 1, 2, 2, generator=draw)
    for _ in range(60):
        maps = image + 0.7 * torch.randn(8, 30, 1, 2, 2, generator=draw)
        large = maps.repeat_interleave(4, -1).repeat_interleave(4, -2)
        shares.append(controls.of_maps(large).everywhere.estimate())
    middle = np.mean([share.value for share in shares])
    assert np.mean([share.low <= middle <= share.high for share in shares]) > 0.93


def test_sampling_is_told_from_training():
    """Members differ by training noise of power one; a map is that plus sampling noise of power one."""
    signal, trained = noise(1, 30, 1, 16, 16, seed=1), noise(6, 30, 1, 16, 16, seed=2)

    def method(model, images, targets, *, seed=0, batch_size=None):
        return (signal + trained)[model] + noise(30, 1, 16, 16, seed=seed)

    found = controls.measure(method, list(range(6)), torch.zeros(30, 1, 16, 16), torch.zeros(30), resample=True)
    assert abs(found.sampling.value - 0.5) < 0.05 and abs(found.power.value - 0.5) < 0.05
    assert abs(found.retraining.value**0.5 - 1) < 0.08
    low, high = found.sampling.estimate()[1:]
    assert low < found.sampling.value < high


def test_the_same_network_again_has_no_snr_without_its_sampling():
    nets, (x, y) = [tiny_net(0)] * 3, batch(3)
    found = controls.measure("smoothgrad", nets, x, y, resample=True)
    assert found.sampling.value > 0.5
    assert math.isnan(found.retraining.value) or found.retraining.estimate().map(snr.rooted).high > 3


def test_members_draw_anew():
    nets, (x, y) = [tiny_net(0)] * 3, batch(3)
    maps = snr.member_maps("smoothgrad", nets, x, y)
    assert pearson(maps[0], maps[1]).max() < 0.999
    assert controls.measure("input_gradient", [tiny_net(s) for s in range(3)], x, y, resample=True).sampling.value == 0


def test_intervals_over_members_are_the_jackknife_of_each_statistic():
    maps = level_and_detail(members=5, images=12, strength=0.7)
    found = controls.measure(*fixed(maps), torch.zeros(12, 1, 16, 16), torch.zeros(12))
    whole = with_the_others(ssim, maps).mean().item()
    left = [with_the_others(ssim, maps[[i for i in range(5) if i != k]]).mean().item() for k in range(5)]
    assert found.likeness.estimate() == pytest.approx(jackknife(whole, left, [1] * 5), rel=1e-6)
    own = snr.measure_maps(maps)
    for part, statistic in (
        (found.corrected, snr.paper_power),
        (found.power, lambda p: controls.unbiased_power(p, found.independent)),
    ):
        power = [statistic(p) for p in (own.value, *own.without)]
        assert part.estimate() == pytest.approx(jackknife(power[0], power[1:], [1] * 5))


def test_equal_maps_are_no_distance_apart_and_unrelated_ones_a_whole():
    one = noise(1, 12, 1, 16, 16)
    equal = controls.of_maps(one.expand(4, -1, -1, -1, -1) + 1e-4 * noise(4, 12, 1, 16, 16))
    unrelated = controls.of_maps(noise(4, 12, 1, 16, 16))
    assert abs(equal.apart.value) < 0.01 and abs(unrelated.apart.value - 1) < 0.05


def test_silent_and_constant_maps_give_no_numbers_rather_than_wrong_ones():
    silent = controls.of_maps(torch.zeros(4, 8, 1, 16, 16))
    assert all(math.isnan(part.estimate().value) for part in (silent.power, silent.apart, silent.sampling))
    constant = torch.rand(4, 8, 1, 1, 1, generator=torch.Generator().manual_seed(0)).add(0.5).expand(4, 8, 1, 16, 16)
    found = controls.of_maps(constant.clone())
    assert abs(found.level.value - 1) < 1e-6 and found.constant == 1
    assert snr.power_mean(found.shifted.value) == pytest.approx(snr.power_mean(found.own.value))
    one_silent = noise(4, 8, 1, 16, 16).add(1)
    one_silent[:, 3] = 0
    rest = snr.measure_maps(one_silent[:, [i for i in range(8) if i != 3]])
    assert controls.of_maps(one_silent).own.debiased().value == pytest.approx(snr.debiased_mean(rest.value))


def test_parts_of_the_images_make_the_whole(monkeypatch):
    nets, (x, y) = [tiny_net(seed) for seed in range(3)], batch(7)
    whole = controls.measure("input_gradient", nets, x, y)
    maps = snr.member_maps("input_gradient", nets, x, y)
    torch.testing.assert_close(snr.snr(whole.own.value), snr.snr(snr.measure_maps(maps).value))
    monkeypatch.setattr(controls, "CHUNK_VALUES", 3 * 3 * x[0].numel())
    parts = controls.measure("input_gradient", nets, x, y)
    torch.testing.assert_close(snr.snr(parts.own.value), snr.snr(whole.own.value))
    assert len(parts.mismatched.value.mean) == 7
    torch.testing.assert_close(parts.independent, whole.independent)
    for name in ("sampling", "likeness", "pairs"):
        assert getattr(parts, name).estimate() == pytest.approx(getattr(whole, name).estimate())
    assert len(parts.apart.without) == 3


def test_too_few_images_are_refused_before_anything_is_computed():
    with pytest.raises(ValueError, match="4 members need as many different images, not 3"):
        controls.measure("input_gradient", [None] * 4, torch.zeros(3, 3, 16, 16), torch.zeros(3, dtype=torch.int64))


def few_pixels(members, images, pixels, ratio, seed=0):
    """Maps, (members, images, 1, 1, pixels), of independent pixels of unit noise, with ||mu|| / ||sigma|| = ratio."""
    return ratio + noise(members, images, 1, 1, pixels, seed=seed).double()


@pytest.mark.parametrize("members,pixels", [(8, 1), (12, 1), (6, 2), (5, 4), (4, 16)])
def test_maps_of_few_pixels_are_not_too_calm(members, pixels):
    """By the closed form, squared ratios of noise with k degrees of freedom are k / (k - 2) times too large."""
    maps, freedom = few_pixels(members, 20000, pixels, 1.5), pixels * (members - 1)
    powers = snr.measure_maps(maps).value
    ratio = powers.mean / powers.noise
    assert ratio.mean().item() == pytest.approx(freedom / (freedom - 2) * (1.5**2 + 1 / members), rel=0.05)
    assert controls.unbiased_power(powers, torch.tensor(pixels)) == pytest.approx(1.5**2, rel=0.05)
    deviations = (powers.noise / pixels).sqrt()
    assert controls.inflation(pixels, members) == pytest.approx((1 / deviations).mean().item(), rel=0.02)


def test_a_map_of_one_pixel_is_worth_one_however_it_is_enlarged():
    maps = few_pixels(8, 2000, 1, 2.0)
    large = maps.expand(-1, -1, 3, 5, 5)
    assert controls.independent_pixels(large).sub(1).abs().max() < 1e-9
    powers = snr.measure_maps(large).value
    too_calm = snr.power_mean(powers) + 1 / 8
    assert controls.unbiased_power(powers, controls.independent_pixels(large)) == pytest.approx(
        too_calm * 5 / 7 - 1 / 8
    )
    three = snr.measure_maps(large[:3]).value
    assert math.isnan(controls.inflation(1, 2)) and controls.inflation(1e6, 8) == pytest.approx(1)
    assert math.isnan(controls.unbiased_power(three, controls.independent_pixels(large[:3]))), "its mean is infinite"


@pytest.mark.parametrize("members", [4, 8, 30])
@pytest.mark.parametrize("pixels", [1, 5, 40])
def test_independent_pixels_are_counted(members, pixels):
    """As what they are for, their reciprocal; equal copies do not count, and unequal noise counts for less."""
    maps = few_pixels(members, 3000, pixels, 0.3, seed=pixels).repeat(1, 1, 1, 2, 1)
    assert (1 / controls.independent_pixels(maps)).mean().item() == pytest.approx(1 / pixels, rel=0.1)
    weights = torch.linspace(0.2, 2, pixels).double()
    worth = (weights**2).sum() ** 2 / (weights**4).sum()
    assert (1 / controls.independent_pixels(maps * weights)).mean().item() == pytest.approx(1 / worth.item(), rel=0.1)


def test_two_members_do_not_say_how_many_pixels_are_independent():
    assert controls.independent_pixels(noise(2, 3, 1, 4, 4)).isnan().all()


@pytest.mark.parametrize("members,groups,size", [(2, 2, 1), (3, 3, 1), (8, 4, 2), (16, 4, 4), (30, 4, 7), (11, 5, 2)])
def test_means_of_disjoint_groups(members, groups, size):
    maps = noise(members, 5, 1, 6, 6)
    means = controls.means_of_groups(maps)
    assert means.shape == (groups, *maps.shape[1:])
    torch.testing.assert_close(means[1], maps[size : 2 * size].mean(0))


def test_a_mean_of_members_has_the_snr_of_the_law():
    found = controls.of_maps(0.5 * noise(1, 40, 1, 16, 16, seed=1) + noise(16, 40, 1, 16, 16))
    assert snr.paper_power(found.of_means.value) == pytest.approx(4 * found.corrected.value, rel=0.1)


def test_the_papers_statistic_is_a_mean_not_a_root_mean_square():
    strength = torch.linspace(0.2, 3, 40).view(1, -1, 1, 1, 1)
    powers = snr.measure_maps(strength + noise(30, 40, 1, 16, 16)).value
    assert snr.paper_power(powers) == pytest.approx(snr.plugin_mean(powers) ** 2 - 1 / 30)
    assert snr.rooted(snr.paper_power(powers)) == pytest.approx(1.6, rel=0.03)
    assert snr.debiased_mean(powers) == pytest.approx(strength.square().mean().sqrt().item(), rel=0.03)


def test_what_few_images_have_in_common_is_a_share_without_bias():
    found = controls.of_maps(level_and_detail(0, 1, 0, images=6, strength=4.0))
    assert abs(found.everywhere.value - 1) < 0.05
    assert abs(controls.of_maps(level_and_detail(0, 0, 1, images=6, strength=4.0)).everywhere.value) < 0.1


def test_an_image_has_no_map_where_the_maps_of_all_members_are_one_number():
    maps = noise(4, 8, 1, 16, 16)
    maps[1], maps[:, 3] = 1.0, 2.0
    assert controls.of_maps(maps).constant == 1 / 8
