"""What several notebooks draw."""

import math

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from saliency_lib.book import drawing
from saliency_lib.estimates import Estimate


def ends(axes):
    """End points of the lines of more than one point."""
    return [line.get_xydata().tolist() for line in axes.lines if len(line.get_xdata()) > 1]


def test_a_dot_has_a_bar_for_every_bounded_interval():
    _, axes = plt.subplots()
    drawing.interval_dot(axes, Estimate(1, 0.5, 2), Estimate(3, 2, 5), "red", label="both")
    assert ends(axes) == [[[0.5, 3], [2, 3]], [[1, 2], [1, 5]]]
    drawing.interval_dot(axes, 4, Estimate(3, -math.inf, 5), "red", fill=False)
    assert len(ends(axes)) == 2 and axes.lines[-1].get_xydata().tolist() == [[4, 3]]
    assert axes.lines[-1].get_markerfacecolor() == "white" and axes.get_legend_handles_labels()[1] == ["both"]


def test_values_of_a_paper_stand_below_their_rows_with_one_label():
    _, axes = plt.subplots()
    drawing.papers_values(axes, [[1, 2], 3], "paper: two networks")
    assert [line.get_ydata().tolist() for line in axes.lines] == [[0.3, 0.3], [1.3]]
    assert axes.get_legend_handles_labels()[1] == ["paper: two networks"]


def test_a_log_axis_has_plain_numbers():
    _, axes = plt.subplots()
    axes.plot([4, 8, 32], [0.3, 1, 8])
    drawing.log_axis(axes.xaxis, [4, 8, 16])
    drawing.log_axis(axes.yaxis)
    assert axes.get_xscale() == axes.get_yscale() == "log" and not len(axes.get_yticks(minor=True))
    axes.figure.canvas.draw()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["4", "8", "16"]
    assert {"0.5", "1", "2", "5"} <= {label.get_text() for label in axes.get_yticklabels()}


@pytest.mark.parametrize("scale, limits", [("map", [1, 2, 4, 8]), ("row", [2, 2, 8, 8]), ("grid", [8] * 4)])
def test_maps_of_a_grid_share_their_scale(scale, limits):
    rows = [[torch.full((4, 4), value) for value in pair] for pair in ((1.0, -2.0), (4.0, 8.0))]
    _, axes = drawing.map_grid(rows, titles=["a", "b"], names=["x", "y"], scale=scale)
    pictures = [ax.images[0] for ax in axes.flat]
    assert [p.get_clim() for p in pictures] == [(-limit, limit) for limit in limits]
    assert [ax.get_title() for ax in axes.flat] == ["a", "b", "", ""]
    assert not any(ax.axison for ax in axes.flat)
    _, by_name = drawing.map_grid(dict(zip("xy", rows)))
    for of in (axes, by_name):
        assert [[text.get_text() for text in ax.texts] for ax in of.flat] == [["x"], [], ["y"], []]


def test_a_grid_shows_pictures_and_leaves_places_empty():
    _, axes = drawing.map_grid([[np.zeros((4, 4, 3)), None], [torch.zeros(4, 4)]])
    assert [len(ax.images) for ax in axes.flat] == [1, 0, 1, 0]
    assert axes[1, 0].images[0].get_clim() == pytest.approx((0, 0), abs=1e-9)
    with pytest.raises(ValueError, match="scale is one of 'map', 'row' and 'grid', not 'figure'"):
        drawing.map_grid([[None]], scale="figure")


def test_dots_stand_by_class_with_a_bar_at_its_mean():
    _, axes = plt.subplots()
    drawing.dots_by_class(axes, np.array([1.0, 5.0, 3.0]), np.array([1, 0, 1]))
    dots = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "."]
    assert dots == [[[0, 5]], [[1, 1], [2, 3]]] and [[1, 2], [2, 2]] in ends(axes)
    assert axes.get_legend_handles_labels()[1] == ["mean of all 3.00"]


def test_arrows_lead_to_a_map_from_all_that_it_depends_on():
    fig = drawing.influences()
    [axes] = fig.axes
    places = {text.get_position(): text.get_text() for text in axes.texts if text.get_text()}
    arrows = {(places[arrow.xyann], places[arrow.xy]) for arrow in axes.texts if not arrow.get_text()}
    assert not axes.axison and len(arrows) == 9
    assert {cause for cause, effect in arrows if effect == "saliency map"} == {"trained network", "picture", "method"}
    fig.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert all(axes.bbox.contains(*corner) for box in boxes for corner in (box.min, box.max))


def test_numbers_of_a_heat_table_can_be_read_on_any_colour():
    _, axes = plt.subplots()
    table = pd.DataFrame([[0.0, 1.0], [math.nan, 0.5]], index=["a", "b"], columns=["x", "y"])
    drawing.heat_table(axes, table, cmap="gray", vmin=0, vmax=1)
    written = {
        text.get_text(): (matplotlib.colors.to_rgb(text.get_color()), text.get_position()) for text in axes.texts
    }
    assert written["0.00"] == ((1, 1, 1), (0, 0)) and written["1.00"] == ((0, 0, 0), (1, 0))
    assert set(written) == {"0.00", "1.00", "0.50"}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    drawing.heat_table(axes, table.set_axis(pd.MultiIndex.from_product([["a"], ["b", "c"]])))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a, b", "a, c"]


def test_one_legend_has_every_label_once():
    fig, axes = plt.subplots(1, 2)
    for ax, names in zip(axes, ("ab", "bc")):
        for name in names:
            ax.plot([0, 1], label=name)
    drawing.legend_below(fig)
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["a", "b", "c"]


def test_a_ratio_of_signal_to_noise_is_linear_to_two():
    _, axes = plt.subplots()
    drawing.snr_axis(axes, 5)
    places = axes.transData.transform([(x, 0) for x in (0, 1, 2, 5)])[:, 0]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1]) and axes.get_xlim() == (0, 5)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.5", "1", "2", "5"]
