"""Whatever finite maps come, of whatever shape: statistics and metrics give numbers in their range, or none."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from saliency_lib import channels, controls, estimates, quality, similarity, snr
from saliency_lib.snr import Moments

FINITE = st.one_of(
    st.floats(-1e6, 1e6, width=32),
    st.sampled_from([0.0, -0.0, 1.0, 1e-30, -1e-30, 3e8]),  # constant stretches, tiny and large values
)


FEW, SIDE = st.integers(1, 4), st.integers(1, 9)


@st.composite
def maps(draw, members=FEW, side=SIDE):
    """(members, images, c, h, w), often constant, of few different values, or with images that are zero."""
    shape = (draw(members), draw(st.integers(1, 3)), draw(st.sampled_from([1, 3])), draw(side), draw(side))
    values = torch.from_numpy(draw(arrays.arrays(np.float32, shape, elements=FINITE, fill=FINITE)))
    return values * draw(st.sampled_from([0.0, 1.0])) if draw(st.booleans()) else values


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def none_or_within(values, low, high, slack=1e-6):
    """Not a number where there is none to give; else in the range."""
    values = torch.as_tensor(values, dtype=torch.float64)
    known = values[~values.isnan()]
    return bool(((known >= low - slack) & (known <= high + slack)).all())


@given(maps())
def test_moments_are_the_mean_and_the_spread(values):
    moments = Moments()
    for member in values:
        moments.update(member)
    exact = values.double()
    size = exact.abs().max().item()
    torch.testing.assert_close(moments.mean, exact.mean(0), rtol=1e-9, atol=1e-12 * size)
    if len(values) == 1:
        with pytest.raises(ValueError, match="at least two members, not 1"):
            _ = moments.variance
    else:
        torch.testing.assert_close(moments.variance, exact.var(0), rtol=1e-6, atol=1e-12 * size**2)


@given(maps(members=st.integers(2, 13)), st.integers(1, 12))
def test_moments_merge_in_any_grouping_and_leave_what_they_merge(values, cut):
    cut = min(cut, len(values) - 1)
    parts = []
    for some in (values[:cut], values[cut:]):
        parts.append(Moments())
        for member in some:
            parts[-1].update(member)
    before = [(part.n, part.mean.clone(), part.m2.clone()) for part in parts]
    merged, exact = Moments().merge(parts[0]).merge(parts[1]), values.double()
    size = exact.abs().max().item()
    torch.testing.assert_close(merged.mean, exact.mean(0), rtol=1e-9, atol=1e-12 * size)
    torch.testing.assert_close(merged.variance, exact.var(0), rtol=1e-6, atol=1e-12 * size**2)
    for (n, mean, m2), part in zip(before, parts):
        assert n == part.n and torch.equal(mean, part.mean) and torch.equal(m2, part.m2)


@given(maps())
def test_snr_of_anything(values):
    if len(values) == 1:
        with pytest.raises(ValueError, match="at least two members, not 1"):
            snr.measure_maps(values)
        return
    measured = snr.measure_maps(values)
    assert len(measured.value.noise) == values.shape[1]
    for ratio in (snr.snr(measured.value), snr.snr_debiased(measured.value)):
        assert none_or_within(ratio, 0, math.inf)
    assert 0 <= measured.clipped <= 1
    debiased = measured.debiased()
    assert math.isnan(debiased.value) or debiased.low <= debiased.value + 1e-9


@given(maps(members=st.integers(2, 4)))
def test_snr_does_not_follow_the_unit_of_maps(values):
    one, other = (snr.measure_maps(v.double()) for v in (values, 4.0 * values))
    for ratio in (snr.snr, snr.snr_debiased):
        torch.testing.assert_close(ratio(one.value), ratio(other.value), equal_nan=True)


@given(maps(members=st.integers(2, 3), side=st.integers(5, 9)))
def test_controls_of_anything(values):
    if values.shape[1] < len(values):
        with pytest.raises(ValueError, match="members need as many different images"):
            controls.mismatch(values)
        return
    found = controls.of_maps(values)
    assert none_or_within([found.likeness.value, found.pairs.value], -1, 1)
    moved = controls.shift(values, 0)
    assert torch.equal(moved.flatten(3).sort().values, values.flatten(3).sort().values), "only places change"


MEASURES = {
    "pearson": similarity.pearson,
    "spearman": similarity.spearman,
    "spearman of absolute values": lambda a, b: similarity.spearman(a, b, absolute=True),
    "ssim": lambda a, b: similarity.ssim(a, b, win_size=3),
    "hog": lambda a, b: similarity.hog(a, b, cell=1),
}


@pytest.mark.parametrize("name", MEASURES)
@given(maps(members=st.just(2), side=st.integers(4, 9)))
def test_similarity_of_anything(name, values):
    """In [-1, 1], the same both ways, one of a map and itself; or no number, for maps without any variation."""
    a, b = values
    found = MEASURES[name](a, b)
    assert found.shape == (len(a),) and none_or_within(found, -1, 1)
    torch.testing.assert_close(found, MEASURES[name](b, a), equal_nan=True, rtol=1e-4, atol=1e-5)
    assert none_or_within(MEASURES[name](a, a), 1, 1, slack=1e-4)


@given(maps(members=st.just(1)))
def test_quality_of_anything(values):
    image_maps = channels.abs_sum(values[0])
    assert none_or_within(quality.gini(image_maps), 0, 1)
    for signed in (image_maps, values[0]):
        assert none_or_within(quality.total_variation(signed), 0, math.inf)
        height, width = signed.shape[-2:]
        if min(height, width) > 1:
            most = ((height // 2 * 2) * (width // 2 * 2) - 1) / 3
            assert none_or_within(quality.checkerboard_power(signed), 0, most)
        else:
            with pytest.raises(ValueError, match="of 2 x 2 pixels at least"):
                quality.checkerboard_power(signed)
    masks = torch.zeros(len(image_maps), *image_maps.shape[-2:], dtype=torch.bool)
    masks[:, 0, 0] = True
    assert none_or_within(quality.relevance_rank_accuracy(image_maps, masks), 0, 1)
    assert none_or_within(quality.ranking_auc(image_maps, masks), 0, 1)


@given(maps(members=st.just(1)))
def test_channels_of_anything(values):
    image_maps = values[0]
    for reduced in (channels.total(image_maps), channels.abs_sum(image_maps)):
        assert reduced.shape == (len(image_maps), 1, *image_maps.shape[2:]) and reduced.isfinite().all()
    assert (channels.abs_sum(image_maps) >= channels.total(image_maps).abs() * (1 - 1e-5)).all()


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12))
def test_estimates_of_anything(values):
    spread, mean = estimates.spread(values), estimates.student(values)
    assert mean.value == pytest.approx(np.mean(values), abs=1e-6)
    assert math.isinf(mean.high) if len(values) == 1 else mean.low <= mean.value <= mean.high
    assert math.isnan(spread.value) or spread.low <= spread.value <= spread.high
