"""How much noise a network bears: the paper's rule of a 5 % drop in accuracy, which needs no map."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from torch import Tensor, nn

from saliency_lib.estimates import Estimate, over_members
from saliency_lib.inference import check, fitting, logits
from saliency_lib.noisegrad.weights import MULTIPLICATIVE, perturbed
from saliency_lib.runtime.seeds import LEVELS, derive

LEAST, MOST = 1e-6, 100.0  # of a sigma that is looked at


@dataclass(frozen=True)
class SigmaChoice:
    """A noise level and the curve that it was read from.

    Attributes
    ----------
    sigma : Estimate
        Where the curve, made monotone, crosses ``drop``; the interval is over draws of the noise.
    drop : float
        The relative drop in accuracy that was asked for.
    sigmas : tuple of float
        The levels that were looked at, from 0 upwards.
    drops : Tensor
        (sigmas, draws), relative drop in accuracy of every draw.
    accuracy, chance : float
        Of the network as it is, and of guessing.
    """

    sigma: Estimate
    drop: float
    sigmas: tuple[float, ...]
    drops: Tensor
    accuracy: float
    chance: float


def accuracy_drop(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    sigma: float,
    *,
    n_draws: int = 10,
    seed: int = 0,
    batch_size: int | None = None,
    kind: str = MULTIPLICATIVE,
    pattern: str = "*",
) -> Tensor:
    """Relative drop in accuracy of every draw of noise on the weights, (n_draws,) float64; 0 none, 1 down to guessing.

    Bykov et al. 2022: AD = 1 - (ACC(sigma) - chance) / (ACC(0) - chance). Chance is one over the number of classes
    among the labels, which should be all that the network knows. Draw k is the same noise at every sigma, times sigma.

    Raises
    ------
    ValueError
        If the network is no better than chance.
    """
    check(model, images, labels, batch_size)
    own, chance = _accuracies(model, images, labels, batch_size)
    return 1 - (_shaken(model, images, labels, sigma, n_draws, seed, batch_size, kind, pattern) - chance) / (
        own - chance
    )


def _shaken(model, images, labels, sigma, n_draws, seed, batch_size, kind, pattern) -> Tensor:
    """Accuracies with noise on the weights, (n_draws,) float64."""
    size, found = batch_size or fitting(model, images), []
    for draw in range(n_draws):
        generator = torch.Generator().manual_seed(derive(seed, LEVELS, draw + 1))
        with perturbed(model, sigma, generator, kind=kind, pattern=pattern):
            found.append(_accuracy(model, images, labels, size))
    return torch.tensor(found, dtype=torch.float64)


def _accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int | None) -> float:
    return (logits(model, images, batch_size).argmax(1) == labels).double().mean().item()


def _accuracies(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int | None) -> tuple[float, float]:
    """Accuracy as it is, and chance."""
    own, classes = _accuracy(model, images, labels, batch_size), len(labels.unique())
    if classes < 2 or own <= 1 / classes:
        raise ValueError(
            f"an accuracy of {own:.3g} on {classes} classes leaves nothing to lose against guessing; "
            "choose sigma on images that the network knows, of several classes"
        )
    return own, 1 / classes


def choose_sigma(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    drop: float = 0.05,
    *,
    n_draws: int = 10,
    n_steps: int = 4,
    seed: int = 0,
    batch_size: int | None = None,
    kind: str = MULTIPLICATIVE,
    pattern: str = "*",
) -> SigmaChoice:
    """The sigma that costs a network the share ``drop`` of its accuracy above chance (Bykov et al. 2022: 5 %).

    Doubles sigma until the mean drop is twice as large, and halves it until the drop is smaller, so that the crossing
    lies well inside; then halves the interval around it ``n_steps`` times. All levels share their draws, and what was
    looked at is made monotone before the crossing is read off, so that a lucky draw does no harm.

    Parameters
    ----------
    images, labels : Tensor
        (n, c, h, w) normalised, and (n,): the drop is resolved to about 1 / n.
    n_draws : int
        Draws of the noise at every level; the interval needs three.

    Raises
    ------
    ValueError
        For a drop outside (0, 1), a network no better than chance, or one that no noise harms.
    """
    if not 0 < drop < 1 or n_draws < 1 or n_steps < 1:
        raise ValueError(f"need 0 < drop < 1, a draw and a step at least, not {drop}, {n_draws} and {n_steps}")
    check(model, images, labels, batch_size)
    size = batch_size or fitting(model, images)
    own, chance = _accuracies(model, images, labels, size)
    found = {0.0: torch.zeros(n_draws, dtype=torch.float64)}

    def mean_drop(sigma: float) -> float:
        left = _shaken(model, images, labels, sigma, n_draws, seed, size, kind, pattern) - chance
        found[sigma] = 1 - left / (own - chance)
        return found[sigma].mean().item()

    sigma = 0.1
    while mean_drop(sigma) < min(2 * drop, (1 + drop) / 2):
        sigma *= 2
        if sigma > MOST:
            raise ValueError(
                f"noise of sigma {sigma / 2:g} costs too small a share of the accuracy to tell where {drop} is"
            )
    lowest = 0.1
    while found[lowest].mean() >= drop and lowest > LEAST:
        lowest /= 2
        mean_drop(lowest)
    high = min(s for s in found if found[s].mean() >= drop)
    low = max(s for s in found if s < high)
    for _ in range(n_steps):
        middle = (low + high) / 2
        low, high = (low, middle) if mean_drop(middle) >= drop else (middle, high)
    sigmas = sorted(found)
    drops = torch.stack([found[sigma] for sigma in sigmas])

    def crossing(draws: Tensor) -> float:  # (draws, sigmas)
        rising = isotonic_regression(draws.mean(0).numpy()).x
        above = int(np.argmax(rising >= drop))
        if rising[above] < drop:
            return float("nan")
        return float(np.interp(drop, rising[above - 1 : above + 1], sigmas[above - 1 : above + 1]))

    return SigmaChoice(over_members(crossing, drops.T), drop, tuple(sigmas), drops, own, chance)
