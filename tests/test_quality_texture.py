"""Total variation and checkerboard power: closed forms, oracles, invariances."""

import numpy as np
import pytest
import torch
from conftest import as_it_comes, noise
from hypothesis import given
from hypothesis import strategies as st

from saliency_lib.quality import (
    blurred_to,
    box_blur,
    checkerboard_power,
    colourfulness,
    grain,
    total_variation,
)  # fmt: skip

Y, X = np.mgrid[:8, :8]
PATTERNS = {"columns": (-1.0) ** X, "rows": (-1.0) ** Y, "checkerboard": (-1.0) ** (X + Y)}


def pattern(name):
    return torch.from_numpy(PATTERNS[name])[None]


def by_loop(maps):
    """Eq. 1 and 2 pixel by pixel, for one map (c, h, w)."""
    total = 0.0
    for channel in maps.numpy().astype(float):
        channel = channel / np.abs(channel).max()
        channel = channel - channel.mean()
        channel = channel / max(np.abs(channel).mean(), 1e-6)
        for y, x in np.ndindex(channel.shape):
            total += abs(channel[y, x] - channel[y - 1, x]) if y else 0
            total += abs(channel[y, x] - channel[y, x - 1]) if x else 0
    return total / maps.numel()


def test_total_variation_is_the_equations_by_a_loop():
    maps = torch.stack([noise(3, 5, 7), noise(3, 5, 7, seed=1) ** 3 - 4, noise(3, 5, 7, seed=2).cumsum(-1)])
    np.testing.assert_allclose(total_variation(maps), [by_loop(m) for m in maps], rtol=1e-12)


def test_total_variation_is_torchmetrics_of_the_normalised_map():
    with as_it_comes():
        from torchmetrics.functional.image import total_variation as theirs
    maps = noise(6, 4, 9, 12) + 0.5
    centred = maps - maps.mean((-2, -1), keepdim=True)
    unit = centred / centred.abs().mean((-2, -1), keepdim=True)
    torch.testing.assert_close(total_variation(maps), theirs(unit, reduction="none") / (4 * 9 * 12))


def test_total_variation_by_hand():
    assert total_variation(pattern("checkerboard")).item() == 2 * 2 * 8 * 7 / 64, "112 steps of height 2"
    assert total_variation(pattern("rows")).item() == 2 * 8 * 7 / 64
    assert total_variation(torch.cat([pattern("rows"), pattern("checkerboard")])).item() == 1.5 * 2 * 8 * 7 / 64
    half = torch.tensor([[[0.0, 0.0, 3.0, 3.0]]])
    assert total_variation(half).item() == pytest.approx(2 / 4), "one step, from -1 to 1"
    spike = torch.zeros(1, 4, 4)
    spike[0, 1, 1] = 1.0
    assert total_variation(spike).item() == pytest.approx(4 / (2 * 15 / 16 / 16) / 16), "four steps of height 1"


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1e-30, 3e30])
def test_a_constant_map_has_no_variation_and_no_power(value):
    flat = torch.full((2, 3, 7, 6), value)
    assert total_variation(flat).tolist() == [0, 0]
    assert checkerboard_power(flat).isnan().all()


@given(seed=st.integers(0, 999), scale=st.sampled_from([1e-30, 1e-9, 1e-3, 7.0, 1e9]), sign=st.sampled_from([-1, 1]))
def test_scale_never_matters(seed, scale, sign):
    maps = noise(2, 3, 8, 6, seed=seed)
    for metric in (total_variation, checkerboard_power):
        torch.testing.assert_close(metric(sign * scale * maps), metric(maps), rtol=1e-10, atol=0)
        small = (scale * maps).float()
        torch.testing.assert_close(metric(small), metric(maps), rtol=1e-4, atol=0)


@given(seed=st.integers(0, 999), offset=st.floats(-100, 100))
def test_an_offset_does_not_matter(seed, offset):
    maps = noise(2, 3, 8, 6, seed=seed)
    for metric in (total_variation, checkerboard_power):
        torch.testing.assert_close(metric(maps + offset), metric(maps), rtol=1e-9, atol=0)


def test_each_channel_counts_the_same():
    maps = noise(5, 3, 8, 8)
    weights = torch.tensor([1e-6, 1.0, 1e6], dtype=torch.float64).view(3, 1, 1)
    for metric in (total_variation, checkerboard_power):
        single = torch.stack([metric(maps[:, k : k + 1]) for k in range(3)]).mean(0)
        torch.testing.assert_close(metric(weights * maps), single, rtol=1e-10, atol=0)


def test_nearly_constant_maps_are_not_blown_up_beyond_the_clamp():
    """A mean deviation of 1e-8 of the largest value is divided by 1e-6."""
    maps = 1 + 1e-8 * pattern("checkerboard")
    assert total_variation(maps).item() == pytest.approx(
        0.01 * total_variation(pattern("checkerboard")).item(), rel=1e-6
    )


def test_blurring_lowers_both():
    maps = noise(20, 1, 16, 16)
    box = (maps + maps.roll(1, -1) + maps.roll(1, -2) + maps.roll((1, 1), (-2, -1))) / 4
    assert (total_variation(box) < total_variation(maps)).all()
    assert (checkerboard_power(box) < 1e-20).all(), "the mean over 2 x 2 pixels has nothing of period two"


@pytest.mark.parametrize("name", list(PATTERNS))
def test_a_pattern_of_period_two_has_all_the_power(name):
    assert checkerboard_power(pattern(name)).item() == pytest.approx(63 / 3)
    mixed = pattern(name) + np.sqrt(2) * torch.from_numpy(np.cos(2 * np.pi * X / 8))
    assert checkerboard_power(mixed).item() == pytest.approx(63 / 3 / 2), "as much power at another period"


def test_waves_of_other_periods_have_no_such_power():
    for y, x in ((1, 0), (0, 3), (2, 1), (4, 1), (3, 4)):
        wave = torch.from_numpy(np.cos(2 * np.pi * (y * Y + x * X) / 8 + 0.3))[None]
        assert checkerboard_power(wave).item() < 1e-20, (y, x)


def test_white_noise_has_power_one():
    found = checkerboard_power(noise(4000, 1, 8, 6))
    error = found.std() / len(found) ** 0.5
    assert error < 0.02 and abs(found.mean() - 1) < 4 * error


def test_two_by_two_pixels_hold_nothing_else():
    torch.testing.assert_close(checkerboard_power(noise(50, 2, 2, 2)), torch.ones(50, dtype=torch.float64))


@given(seed=st.integers(0, 99), dy=st.integers(-7, 7), dx=st.integers(-5, 5))
def test_power_does_not_depend_on_a_circular_shift(seed, dy, dx):
    maps = noise(2, 3, 8, 6, seed=seed)
    torch.testing.assert_close(checkerboard_power(maps.roll((dy, dx), (-2, -1))), checkerboard_power(maps))


def test_channels_without_variation_are_left_out():
    maps = noise(4, 2, 8, 8)
    flat = torch.cat([maps, torch.full((4, 3, 8, 8), 0.1, dtype=maps.dtype)], 1)
    torch.testing.assert_close(checkerboard_power(flat), checkerboard_power(maps))


@pytest.mark.parametrize("height,width", [(9, 8), (8, 9), (9, 9), (3, 2)])
def test_odd_rows_and_columns_are_cut_off(height, width):
    maps = noise(3, 2, height, width)
    even = maps[..., : height // 2 * 2, : width // 2 * 2]
    assert torch.equal(checkerboard_power(maps), checkerboard_power(even))


@pytest.mark.parametrize("metric", [total_variation, checkerboard_power])
def test_leading_axes_are_kept(metric):
    maps = noise(2, 4, 3, 6, 6).float()
    found = metric(maps)
    assert found.shape == (2, 4) and found.dtype == torch.float64
    for i, j in np.ndindex(2, 4):
        alone = metric(maps[i, j])
        assert alone.shape == ()
        torch.testing.assert_close(alone, found[i, j])


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: total_variation(torch.ones(4, 4)), r"expected maps \(..., c, h, w\) .* not \(4, 4\)"),
        (lambda: total_variation(torch.ones(2, 0, 4, 4)), "with values in them"),
        (lambda: total_variation(torch.full((1, 4, 4), torch.inf)), "not finite"),
        (lambda: checkerboard_power(torch.ones(4, 4)), r"not \(4, 4\)"),
        (lambda: checkerboard_power(torch.ones(1, 1, 4)), r"2 x 2 pixels at least, not \(1, 1, 4\)"),
        (lambda: checkerboard_power(torch.ones(1, 4, 1)), "2 x 2 pixels"),
        (lambda: checkerboard_power(torch.full((1, 4, 4), torch.nan)), "not finite"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_grain_of_stripes_of_period_two_is_known():
    x = torch.arange(64) % 2
    stripes = x.double().expand(2, 3, 64, 64)  # neighbours in a row differ by 1, in a column by 0
    torch.testing.assert_close(grain(stripes), torch.full((2,), 0.5 / stripes[0].std().item()).double())
    torch.testing.assert_close(grain(7 * stripes + 3), grain(stripes))


def test_colourfulness_is_that_of_hasler_and_suesstrunk():
    picture = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0)).double()
    r, g, b = picture.numpy()
    rg, yb = r - g, (r + g) / 2 - b
    expected = np.hypot(rg.std(ddof=1), yb.std(ddof=1)) + 0.3 * np.hypot(rg.mean(), yb.mean())
    assert colourfulness(picture).item() == pytest.approx(expected)
    grey = picture[:1].expand(3, -1, -1)
    assert colourfulness(grey).item() == 0 and colourfulness(picture[:1]) == picture[:1].std()


def test_a_box_blur_keeps_constants_removes_period_two_and_moves_nothing():
    torch.testing.assert_close(box_blur(torch.full((1, 1, 8, 8), 3.0)), torch.full((1, 1, 8, 8), 3.0))
    inside = (..., slice(1, -1), slice(1, -1))  # at the edge a pixel stands for its neighbour
    for name in PATTERNS:
        assert box_blur(pattern(name)[None])[inside].abs().max() < 1e-12
    point = torch.zeros(1, 1, 5, 5)
    point[..., 2, 2] = 1
    torch.testing.assert_close(box_blur(point), box_blur(point).flip(-1, -2))


def test_a_gaussian_blur_meets_its_goal_or_leaves_what_is_smooth_enough():
    maps = noise(3, 1, 16, 16)
    goal = total_variation(maps).mean().item() / 2
    assert abs(total_variation(blurred_to(maps, goal)).mean().item() - goal) < 0.03
    assert blurred_to(maps, 100.0) is maps
