"""The survey of a method: its parts by themselves, and what noise and signal score in it."""

import pytest
import torch
from conftest import batch, tiny_net

from saliency_lib import snr, survey
from saliency_lib.similarity import pearson, ssim
from saliency_lib.survey import mismatch, shift


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


def test_what_signal_and_noise_score():
    signal, x = noise(1, 12, 1, 16, 16, seed=1), torch.zeros(12, 1, 16, 16)
    found = survey.survey(*fixed(2 * signal + noise(6, 12, 1, 16, 16)), x, torch.zeros(12))
    assert abs(snr.debiased_mean(found.own.all) - 2) < 0.1
    for part in (found.mismatched, found.shifted):
        assert abs(snr.plugin_mean(part.all) - 6**-0.5) < 0.05
    half = survey.survey(*fixed(noise(6, 12, 1, 16, 16).abs()), x, torch.zeros(12))
    for part in (half.own, half.shifted, half.mismatched):  # noise without a sign: all three say the same
        assert abs(snr.debiased_mean(part.all) - 1.32) < 0.05


def test_parts_of_the_images_make_the_whole(monkeypatch):
    nets, (x, y) = [tiny_net(seed) for seed in range(3)], batch(7)
    whole = survey.survey("input_gradient", nets, x, y)
    maps = snr.member_maps("input_gradient", nets, x, y)
    torch.testing.assert_close(snr.snr(whole.own.all), snr.snr(snr.measure_maps(maps).all))
    torch.testing.assert_close(whole.ssim[1], ssim(maps[1], (maps[0] + maps[2]) / 2))
    monkeypatch.setattr(survey, "CHUNK_VALUES", 3 * 3 * x[0].numel())
    parts = survey.survey("input_gradient", nets, x, y)
    torch.testing.assert_close(snr.snr(parts.own.all), snr.snr(whole.own.all))
    torch.testing.assert_close(parts.ssim, whole.ssim)
    assert all(len(p.all.mean) == 7 for p in (parts.own, parts.mismatched, parts.shifted))


def test_members_draw_anew_and_their_own_sampling_is_told_apart():
    nets, (x, y) = [tiny_net(0), tiny_net(0), tiny_net(0)], batch(3)
    maps = snr.member_maps("smoothgrad", nets, x, y)
    assert pearson(maps[0], maps[1]).max() < 0.999
    share = survey.sampling_share("smoothgrad", nets, x, y)
    assert 0.5 < share < 2  # members are the same network: all of their noise is sampling, estimated from three
    assert survey.sampling_share("input_gradient", [tiny_net(s) for s in range(3)], x, y) == 0
