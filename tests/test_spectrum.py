"""Spectra of maps: closed forms, Parseval, and the best filter of known signal and noise."""

import numpy as np
import pytest
import torch
from conftest import noise
from hypothesis import given
from hypothesis import strategies as st

from saliency_lib import spectrum


def test_white_noise_is_flat_at_its_variance_and_shared_by_nobody():
    power = spectrum.cross_power(3 * noise(40, 30, 1, 16, 16))
    np.testing.assert_allclose(spectrum.own(power), 9, rtol=0.1)
    np.testing.assert_allclose(spectrum.shared(power), 0, atol=0.15)


def test_a_sine_is_one_ring():
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    waves = torch.stack([torch.sin(2 * torch.pi * (5 * x + phase) / 32) for phase in (0, 3)])
    power = spectrum.cross_power(waves[:, None, None])
    assert set(np.flatnonzero(power[:, 0, 0] > 1e-9)) == {5}
    # what two waves share is the cosine of the angle between them
    assert power[5, 0, 1] / power[5, 0, 0] == pytest.approx(np.cos(2 * np.pi * 3 / 32))


@given(st.integers(2, 13), st.integers(2, 13), st.integers(0, 99))
def test_parseval(height, width, seed):
    maps = noise(2, 3, 2, height, width, seed=seed)
    counts = spectrum.rings(height, width).flatten().bincount().numpy()
    power = spectrum.cross_power(maps)
    total = np.einsum("r,rij->ij", counts, power) * 3 * 2
    np.testing.assert_allclose(total, (maps.flatten(1) @ maps.flatten(1).T).numpy(), atol=1e-9)


def test_shared_and_own_add_to_the_power_of_one_map_for_any_members():
    power = spectrum.cross_power(noise(6, 4, 3, 8, 8) + noise(1, 4, 3, 8, 8, seed=1))
    for members in (None, [0, 2, 5], [4, 1]):
        rows = range(6) if members is None else members
        mean = np.mean([power[:, k, k] for k in rows], 0)
        np.testing.assert_allclose(spectrum.shared(power, members) + spectrum.own(power, members), mean)
    assert spectrum.shared(power, [0, 1])[0] == pytest.approx(power[0, 0, 1])


def test_the_ratio_of_rings_is_that_of_maps_without_the_others():
    maps = 0.7 * noise(1, 9, 2, 8, 12, seed=1) + noise(6, 9, 2, 8, 12)
    power, where = spectrum.cross_power(maps), spectrum.rings(8, 12)
    for keep, members in ((slice(None), None), (slice(2, 5), [0, 3, 4]), (np.arange(len(power)) > 3, [5, 1])):
        kept = np.isin(where.numpy(), np.arange(len(power))[keep])
        some = torch.fft.ifft2(torch.fft.fft2(maps) * torch.as_tensor(kept)).real
        some = some if members is None else some[members]
        of_two = [(a * b).sum() for i, a in enumerate(some) for j, b in enumerate(some) if i != j]
        common, total = np.mean(of_two), some.square().sum() / len(some)
        assert spectrum.ratio(power, (8, 12), keep, members) == pytest.approx(float(common / (total - common)))
    assert np.isnan(spectrum.ratio(power, (8, 12), []))


def test_the_gain_is_wieners_and_no_other_gives_a_smaller_error():
    smooth = torch.exp(-(spectrum.rings(16, 16).double() ** 2) / 20)
    common = 4 * torch.fft.ifft2(torch.fft.fft2(noise(1, 200, 1, 16, 16, seed=1)) * smooth).real
    maps = common + noise(12, 200, 1, 16, 16)
    gains = spectrum.gain(spectrum.cross_power(maps))
    expected = [float((16 * s) / (16 * s + 1)) for s in torch.exp(-(torch.arange(12.0) ** 2) / 10)]
    np.testing.assert_allclose(gains, expected, atol=0.06)

    def error(gains):
        return (spectrum.multiplied(maps[0], gains) - common[0]).square().mean().item()

    assert error(gains) < min(error(gains + 0.1), error(gains * 0.8), error(np.ones(12))) < maps[0].var().item()


def test_a_gain_of_one_changes_nothing_and_gains_fit_maps_of_any_size():
    maps = noise(2, 3, 9, 12)
    torch.testing.assert_close(spectrum.multiplied(maps, np.ones(6)), maps)
    mean = spectrum.multiplied(maps, [1.0] + [0.0] * 40)
    torch.testing.assert_close(mean, maps.mean((-2, -1), keepdim=True).expand_as(maps))


def test_bad_input_is_said():
    with pytest.raises(ValueError, match=r"expected maps \(networks, images, c, h, w\), not \(2, 3, 4, 4\)"):
        spectrum.cross_power(noise(2, 3, 4, 4))
    with pytest.raises(ValueError, match="not finite"):
        spectrum.cross_power(torch.full((2, 1, 1, 4, 4), torch.nan))
    with pytest.raises(ValueError, match="what networks share takes two of them"):
        spectrum.shared(spectrum.cross_power(noise(1, 1, 1, 4, 4)))
    for gains in ([], [[1.0]], [1.0, np.nan]):
        with pytest.raises(ValueError, match="gains are finite numbers, one a ring"):
            spectrum.multiplied(noise(4, 4), gains)


def test_rings_count_cycles_in_the_shorter_side():
    wave = torch.sin(2 * torch.pi * 5 * torch.arange(64.0) / 32).expand(32, 64)
    for maps in (wave, wave.T):
        power = spectrum.cross_power(maps.expand(2, 1, 1, *maps.shape))
        assert set(np.flatnonzero(power[:, 0, 0] > 1e-9)) == {5}


@pytest.mark.parametrize("shape", [(4, 8), (3, 9), (8, 8), (28, 40)])
def test_the_mean_alone_is_in_ring_zero(shape):
    assert (spectrum.rings(*shape) == 0).nonzero().tolist() == [[0, 0]]
