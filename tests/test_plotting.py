"""A figure is a picture and its numbers."""

import json
import math
from dataclasses import replace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from saliency_lib import ensembles
from saliency_lib.attribution import METHODS
from saliency_lib.book import captions, claims, plotting, profiles
from saliency_lib.estimates import Estimate


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("SALIENCY_FIGURES", str(tmp_path))
    return plotting.Run("02_gradient_snr", {"profile": "smoke", "seed": 3, "n_members": 2})


def test_a_series_of_estimates_is_an_object_with_joined_keys():
    one, other = Estimate(1, 0.5, 1.5), Estimate(2, 1, 3)
    levels = pd.Series({("a", "b"): one, ("a", "c"): other})
    assert plotting.as_json(levels) == {"a, b": plotting.as_json(one), "a, c": plotting.as_json(other)}
    assert plotting.as_json({"s": pd.Series([one], index=[7])}) == {"s": {"7": plotting.as_json(one)}}


def test_a_figure_is_saved_with_its_numbers_and_provenance(run, tmp_path, capsys):
    figure, _ = plt.subplots()
    open_before = len(plt.get_fignums())
    run.save(
        figure,
        "02_test",
        verdicts=[claims.not_testable("W01", "too small")],
        numbers={"a": Estimate(1, 0.5, 1.5), "b": math.inf, "c": np.float32(0.25)},
        series={"t": torch.tensor([1, 2]), "e": [Estimate(1, -math.inf, 2)]},
    )
    content = json.loads((tmp_path / "smoke" / "02_test.json").read_text())
    assert content["numbers"] == {"a": {"value": 1, "low": 0.5, "high": 1.5}, "b": None, "c": 0.25}
    assert content["series"] == {"t": [1, 2], "e": [{"value": 1, "low": None, "high": 2}]}
    assert content["provenance"]["seed"] == 3 and content["provenance"]["parameters"]["n_members"] == 2
    assert {"device", "threads", "seconds", "versions"} <= set(content["provenance"])
    with Image.open(tmp_path / "smoke" / "02_test.png") as picture:
        assert picture.size[0] > 300
    assert len(plt.get_fignums()) == open_before - 1
    assert "– W01 not testable at this size: mean SNR of input gradients" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "smoke").iterdir()) == ["02_test.json", "02_test.png"]


def test_provenance_is_of_one_notebook_also_where_a_process_runs_several(monkeypatch):
    monkeypatch.setattr(plotting, "RUNS", [])
    spec = ensembles.EnsembleSpec("digits", "mlp", 2, n_train=8, n_val=8, trained=False)
    made = []
    for used in ([spec], [replace(spec, dataset="cdigits"), spec], [spec]):
        run = plotting.start("02_gradient_snr", profiles.parameters("02_gradient_snr"))
        ensembles.get(used[0])
        for each in used:
            ensembles.splits(each)
        made.append(run.provenance())
    assert [{name.split()[0] for name in each["data"]} for each in made] == [
        {"digits"},
        {"cdigits", "digits"},
        {"digits"},
    ]
    assert [len(each["networks"]) for each in made] == [1, 1, 1]


def test_a_figure_that_cannot_be_written_leaves_the_old_one(run, tmp_path, monkeypatch):
    figure, _ = plt.subplots()
    run.save(figure, "02_test")
    old = (tmp_path / "smoke" / "02_test.png").read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    figure, _ = plt.subplots()
    monkeypatch.setattr(figure, "savefig", full)
    with pytest.raises(OSError, match=r"cannot write .*02_test.png: the disk is full; free some space"):
        run.save(figure, "02_test")
    assert (tmp_path / "smoke" / "02_test.png").read_bytes() == old
    plt.close(figure)


def test_signed_maps_are_centred_at_zero():
    figure, axes = plt.subplots()
    maps = torch.linspace(-1, 3, 16).view(1, 4, 4)
    image = plotting.show_map(axes, plotting.summed(maps), plotting.map_scale(maps))
    assert image.norm.vmin == -image.norm.vmax and image.cmap.name == plotting.SIGNED
    assert matplotlib.colormaps[plotting.SIGNED](0.5)[:3] == pytest.approx((0.97, 0.97, 0.97), abs=0.01)
    plt.close(figure)


def test_every_method_has_a_colour_of_its_own():
    assert len({plotting.METHOD_COLOURS[name] for name in METHODS}) == len(METHODS)
    with pytest.raises(KeyError):
        plotting.METHOD_COLOURS["no method"]


def test_bands_leave_out_unbounded_intervals():
    figure, axes = plt.subplots()
    plotting.with_interval(axes, [1, 2], [Estimate(1, -math.inf, math.inf), Estimate(2, 1, 3)], "x", "black")
    figure.canvas.draw()
    assert axes.get_ylim()[1] < 4
    plt.close(figure)


def test_an_animation_is_a_looped_gif_of_all_frames(run, tmp_path):
    figures = []
    for k in range(3):
        figure, axes = plt.subplots(figsize=(2, 1))
        axes.plot([0, k])
        figures.append(figure)
    open_before = len(plt.get_fignums())
    run.save_animation(figures, "02_test", seconds=0.2)
    with Image.open(tmp_path / "smoke" / "02_test.gif") as picture:
        assert picture.n_frames == 3 and picture.info["loop"] == 0 and picture.info["duration"] == 200
    assert len(plt.get_fignums()) == open_before - 3


def test_an_animation_is_shown_with_its_text_wherever_html_is(run, monkeypatch):
    shown = []
    monkeypatch.setattr(plotting, "display", shown.append)
    monkeypatch.setattr(captions, "table", lambda: {"02_test": captions.Caption("none", 'a "quoted" line')})
    run.save_animation([plt.figure(figsize=(1, 1))], "02_test")
    assert shown[0].data.startswith('<img src="data:image/gif;base64,') and "a &quot;quoted&quot; line" in shown[0].data


def test_a_forest_has_a_row_per_name_and_leaves_out_unbounded_intervals():
    figure, axes = plt.subplots()
    plotting.forest(axes, {"a": Estimate(1, 0.5, 2), "b": Estimate(3, -math.inf, math.inf)}, reference=1)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert len(axes.lines) == 4  # one bar, two dots, the reference
    assert all(np.isfinite(line.get_xydata()).all() for line in axes.lines)
    plotting.forest(axes, {"a": Estimate(1, 0.5, 2), "b": Estimate(3, 2, 4)}, shift=0.2, label="more")
    assert [line.get_ydata()[0] for line in axes.lines[4:]] == [0.2, 0.2, 1.2, 1.2]
    assert axes.get_legend_handles_labels()[1] == ["more"]
    plt.close(figure)


def test_what_stands_beside_a_figure_in_words(monkeypatch):
    monkeypatch.setattr(captions, "table", lambda: {"02_a": captions.Caption("Fig. 1", "Dots: {}, in all {}.")})
    found = captions.of("02_a", [{"one": Estimate(0.1234, 0.1, 0.2), "two\nlines": 2}, Estimate(1, 0.5, 1.5)])
    assert found == ("Fig. 1", f"Dots: one 0.123, two lines 2, in all {Estimate(1, 0.5, 1.5)}.")
    assert captions.of("02_my_own") == ("beyond the papers", "02 my own")
