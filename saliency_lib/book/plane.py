"""Two classes of points in the plane and small networks that tell them apart.

A point is a picture of one pixel with two channels, so that every saliency method takes it.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import circstd
from sklearn.datasets import make_moons
from torch import Tensor, nn

from saliency_lib.book.plotting import BLACK, BLUE, GREEN, ORANGE
from saliency_lib.noisegrad import perturbed
from saliency_lib.runtime.seeds import seeded


def moons(seed: int) -> tuple[Tensor, Tensor]:
    """300 standardised points of two noisy half circles, (300, 2, 1, 1), and the class of each, (300,)."""
    points, sides = make_moons(300, noise=0.25, random_state=seed)
    points = torch.tensor(points, dtype=torch.float32)
    return as_pictures((points - points.mean(0)) / points.std(0)), torch.tensor(sides)


def perceptron(points: Tensor, sides: Tensor, seed: int) -> nn.Module:
    """A perceptron of three layers, 24 wide, with ReLUs, trained on the points by 250 steps of Adam."""
    with seeded(seed):
        layers = nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 2)
        network = nn.Sequential(nn.Flatten(), *layers)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(250):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(points), sides).backward()
        optimizer.step()
    return network.eval()


def as_pictures(points: Tensor) -> Tensor:
    """(n, 2) coordinates as pictures, (n, 2, 1, 1)."""
    return points[:, :, None, None]


def grid(limit: float, n: int) -> Tensor:
    """n x n places from -limit to limit, (n * n, 2, 1, 1); the first coordinate changes fastest."""
    ticks = torch.linspace(-limit, limit, n)
    return as_pictures(torch.cartesian_prod(ticks, ticks).flip(1))


@torch.no_grad()
def margin(network: nn.Module, places: Tensor) -> Tensor:
    """Logit of the second class less that of the first, (n,): zero on the boundary."""
    return network(places) @ torch.tensor([-1.0, 1.0])


def passed(network: nn.Module, places: Tensor, sigma: float, seed: int) -> Tensor:
    """Places that change sides in at least one of 25 draws of noise on the weights, (places,) bool."""
    weights = torch.Generator().manual_seed(seed)
    own, changed = margin(network, places) > 0, torch.zeros(len(places), dtype=torch.bool)
    for _ in range(25):
        with perturbed(network, sigma, weights):
            changed |= (margin(network, places) > 0) != own
    return changed


def draw_boundary(axes: plt.Axes, network: nn.Module, width: float = 1.4) -> None:
    """The boundary of a network's classes, dashed."""
    ticks, height = torch.linspace(-2.4, 2.4, 81), margin(network, grid(2.4, 81)).view(81, 81)
    axes.contour(ticks, ticks, height, [0], colors=GREEN, linewidths=width, linestyles="--")


def draw_points(axes: plt.Axes, points: Tensor, sides: Tensor, network: nn.Module, title: str = "") -> None:
    """The points of both classes, blue and orange, and a network's boundary, without ticks."""
    colours = [(BLUE, ORANGE)[side] for side in sides]
    x, y = points.flatten(1).T
    axes.scatter(x, y, c=colours, s=3, alpha=0.35, lw=0)
    draw_boundary(axes, network)
    axes.set(title=title, xlim=(-2, 2), ylim=(-2, 2), xticks=[], yticks=[], aspect="equal")


def draw_arrows(axes: plt.Axes, place: Tensor, places: Sequence[Tensor], arrows: Sequence[Tensor]) -> None:
    """Thin arrows, each where it was found, and a thick one for their mean at ``place``, which is 0.9 long.

    All are points in the plane, (1, 2, 1, 1).
    """
    starts, ends = torch.cat(list(places)).flatten(1), torch.cat(list(arrows)).flatten(1)
    ends = ends * 0.9 / ends.mean(0).norm()
    in_units: dict = {"angles": "xy", "scale_units": "xy", "scale": 1}
    axes.quiver(*starts.T, *ends.T, width=0.006, alpha=0.4, **in_units)
    axes.plot(*starts.T, ".", color=BLACK, ms=2)
    axes.quiver(*place.flatten(), *ends.mean(0), width=0.018, zorder=4, **in_units)
    axes.plot(*place.flatten(), "o", color=BLACK, ms=5, zorder=5)


def spread(arrows: Sequence[Tensor]) -> float:
    """Circular standard deviation of the directions of arrows, (1, 2, 1, 1) each, in degrees."""
    found = torch.cat(list(arrows)).flatten(1)
    return float(np.degrees(circstd(torch.atan2(found[:, 1], found[:, 0]).numpy())))
