"""Points in the plane: what the small networks tell apart, and what is drawn of them."""

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from saliency_lib.attribution import METHODS
from saliency_lib.book import plane
from saliency_lib.runtime.seeds import seeded

POINTS, SIDES = plane.moons(0)
NET = plane.perceptron(POINTS, SIDES, 0)


def test_points_are_pictures_of_one_pixel_that_a_small_network_tells_apart():
    assert POINTS.shape == (300, 2, 1, 1) and set(SIDES.tolist()) == {0, 1}
    torch.testing.assert_close(POINTS.mean(0), torch.zeros(2, 1, 1), atol=1e-6, rtol=0)
    assert (NET(POINTS).argmax(1) == SIDES).float().mean() > 0.9
    assert METHODS["input_gradient"].function(NET, POINTS[:3], SIDES[:3]).shape == (3, 2, 1, 1)


def test_training_hangs_on_the_seed_alone():
    points, sides = plane.moons(0)
    again = plane.perceptron(points, sides, 0)
    assert all(map(torch.equal, NET.state_dict().values(), again.state_dict().values()))


def test_a_grid_runs_along_the_first_coordinate():
    corners = plane.grid(2.0, 3).flatten(1)[[0, 1, 2, 3, 8]]
    assert corners.tolist() == [[-2, -2], [0, -2], [2, -2], [-2, 0], [2, 2]]


def test_the_margin_is_above_zero_on_the_second_side():
    places = plane.grid(2.0, 9)
    assert torch.equal(plane.margin(NET, places) > 0, NET(places).argmax(1) == 1)


def test_no_noise_moves_the_boundary_nowhere_and_noise_somewhere():
    places = plane.grid(2.0, 21)
    assert not plane.passed(NET, places, 0.0, seed=0).any()
    assert 0 < plane.passed(NET, places, 0.2, seed=0).float().mean() < 1


def test_arrows_of_one_direction_have_no_spread():
    east, north = torch.tensor([[[[2.0]], [[0.0]]], [[[0.0]], [[1.0]]]]).split(1)
    assert plane.spread([east, 3 * east]) == pytest.approx(0, abs=1e-3)
    assert plane.spread([east, north]) == pytest.approx(47.7, abs=0.1)  # sqrt(ln 2)


def test_the_mean_arrow_is_as_long_as_it_says_and_the_boundary_where_it_is():
    fig, ax = plt.subplots()
    with seeded(0):
        flat = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        flat[1].weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        flat[1].bias.copy_(torch.tensor([0.5, 0.0]))
    plane.draw_points(ax, POINTS, SIDES, flat, title="flat")
    x, _ = ax.collections[1].get_paths()[0].vertices.T
    assert ax.get_title() == "flat" and x == pytest.approx(0.5)
    place = torch.zeros(1, 2, 1, 1)
    plane.draw_arrows(ax, place, [place, place], [torch.ones(1, 2, 1, 1), 3 * torch.ones(1, 2, 1, 1)])
    thin, thick = ax.collections[-2:]
    assert pytest.approx(0.9) == (thick.U**2 + thick.V**2) ** 0.5 and thin.U.mean() == pytest.approx(thick.U)
    plt.close(fig)
