"""Rows of a table of methods, and the paper's values beside them."""

import math

import pytest
import torch
from conftest import tiny_net

from saliency_lib import attribution, controls, models, snr
from saliency_lib.book import rows
from saliency_lib.estimates import Estimate
from saliency_lib.runtime.seeds import seeded


def test_a_row_without_sampling_and_its_columns():
    noise = torch.randn(6, 12, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    m = controls.of_maps(noise + 2 * noise[:1])
    row = rows.summary(m)
    assert set(rows.COLUMNS) < set(row) and row["no map"] is False
    assert row["without sampling"] == row["corrected"] == m.own.corrected()
    assert row["corrected"].value == pytest.approx(snr.debiased_number(row["SNR (Eq. 5)"].value, 6))
    assert row["null"].value < row["corrected"].value
    assert rows.summary(controls.of_maps(noise.mean((-2, -1), keepdim=True).expand_as(noise)))["no map"]


def test_noise_is_put_back_as_it_was_taken_off():
    for noisy, ratio in zip(rows.with_noise(Estimate(0.8, 0.7, 0.9)), (0.8, 0.7, 0.9)):
        assert snr.debiased_number(noisy, rows.PAPERS) == pytest.approx(ratio)


def test_a_lead_is_over_the_best_of_the_others():
    noise = torch.randn(6, 12, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    measured = {name: controls.of_maps(noise + k * noise[:1]) for k, name in enumerate("abcd")}
    of = {name: m.power.estimate(snr.rooted).value for name, m in measured.items()}
    ahead, behind = (rows.lead(measured, name, "abcd") for name in "da")
    assert ahead.value == pytest.approx(of["d"] / of["c"]) and ahead.low > 1
    assert behind.value == pytest.approx(of["a"] / of["d"]) and behind.high < 1


@pytest.mark.parametrize(
    "row, model, dataset, plugin",
    [
        ("input_gradient", "vgg19", "cifar10", [0.436]),
        ("input_gradient", "resnet_small", "cifar10", [0.555, 0.435]),
        ("gradcam top", "convnet-w16-d4-max", "cifar10", [0.816]),
    ],
)
def test_a_row_of_the_paper_is_of_like_networks(row, model, dataset, plugin):
    assert rows.of_paper(row, model, dataset) == pytest.approx([snr.debiased_number(p, 30) for p in plugin])


def test_other_data_stand_beside_both_of_the_papers_and_other_rows_beside_none():
    assert len(rows.of_paper("kernel_shap", "resnet_small", "photodigits")) == 4
    assert rows.of_paper("lime", "vgg19", "photodigits")[0] == rows.of_paper("lime", "vgg19", "cifar10")[0]
    assert rows.of_paper("rise", "resnet18", "cifar10") == rows.of_paper("gradcam top, ReLU", "vgg19", "cifar10") == []


def test_rows_of_the_same_members_go_together():
    maps = [torch.randn(6, 8, 1, 16, 16, generator=torch.Generator().manual_seed(k)) + k for k in (1, 2)]
    measured = {str(k): controls.of_maps(m) for k, m in enumerate(maps)}
    power = rows.jointly(measured, ["1", "0"], "power")
    assert power.value == {"1": measured["1"].power.value, "0": measured["0"].power.value}
    assert rows.relative(power.value["1"], power.value["0"]) == pytest.approx(2, rel=0.2)
    assert rows.relative(-1.0, 2.0) == 0 and math.isnan(rows.relative(1.0, 0.0))


def test_noise_that_is_never_negative_scores():
    images = torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    scores = rows.of_noise(tiny_net(), images, 10, attribution.METHODS["rise"].function, 4, 9)
    assert scores["gradcam top, ReLU"] > 0.68, "of single pixels it is 0.68, and resizing takes noise"
    assert scores["rise"] > scores["gradcam top, ReLU"]
    values = torch.randn(200, 1, 1, 50, 50, 9, generator=torch.Generator().manual_seed(1)).var(-1)
    assert scores["vargrad"] == pytest.approx(snr.measure_maps(values).corrected().value, rel=0.02)


def test_gradcam_of_one_pixel_is_no_map():
    """ResNet18's last stage at 32 pixels: a level and no place, so that nothing may be read from its rounding."""
    x, y = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    with seeded(0):
        nets = [models.build("resnet18", 10).eval() for _ in range(3)]
    measured = controls.of_maps(torch.stack([attribution.gradcam(net, x, y) for net in nets]))
    assert rows.summary(measured)["no map"] and measured.constant == 1
