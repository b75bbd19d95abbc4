"""NoiseGrad and FusionGrad: a method's maps averaged over networks whose weights are shaken (Bykov et al. 2022)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from torch import Tensor, nn

from saliency_lib.attribution.passes import check, fitting, logits
from saliency_lib.attribution.registry import resolve
from saliency_lib.attribution.smoothing import SIGMA, smooth
from saliency_lib.estimates import Estimate, over_members
from saliency_lib.randomness import derive

MULTIPLICATIVE, ADDITIVE = "multiplicative", "additive"
WEIGHTS, LEVEL = 1, 2  # what seeds are for
MOST = 100.0  # of a sigma that is looked at


def _chosen(model: nn.Module, pattern: str) -> list[nn.Parameter]:
    named = [(name, p) for name, p in model.named_parameters() if p.is_floating_point()]
    chosen = [p for name, p in named if fnmatchcase(name, pattern)]
    if not chosen:
        known = ", ".join(name for name, _ in named[:3]) or "none"
        raise ValueError(f"no parameter's name matches {pattern!r}; there are {len(named)}: {known} ...")
    return chosen


def check_noise(sigma: float, kind: str) -> None:
    """Raise ValueError for a negative ``sigma`` or an unknown ``kind`` of noise."""
    if not 0 <= sigma < float("inf"):
        raise ValueError(f"noise on weights needs a finite sigma >= 0, not {sigma}")
    if kind not in (MULTIPLICATIVE, ADDITIVE):
        raise ValueError(f"unknown kind of noise {kind!r}; one of {[ADDITIVE, MULTIPLICATIVE]}")


@contextmanager
def perturbed(
    model: nn.Module, sigma: float, generator: torch.Generator, *, kind: str = MULTIPLICATIVE, pattern: str = "*"
) -> Iterator[nn.Module]:
    """Shake the model's weights inside the block; restored bit for bit after it, also on an exception.

    Bykov et al. 2022, Eq. 2: every parameter times its own draw from N(1, sigma^2). Buffers, as batch normalisation's
    statistics, stay.

    Parameters
    ----------
    generator : torch.Generator
        Where the draws come from; one on the CPU gives the same draws for a model on any device.
    kind : str
        ``"multiplicative"``, or ``"additive"``: plus N(0, sigma^2), in units of the weights.
    pattern : str
        Names of the parameters to shake, with ``*`` for anything: ``"*weight"``, ``"layer4.*"``.

    Raises
    ------
    ValueError
        For a negative sigma, an unknown kind, or a pattern that no parameter has.
    """
    check_noise(sigma, kind)
    chosen = _chosen(model, pattern)
    kept = [p.detach().clone() for p in chosen]
    try:
        with torch.no_grad():
            for p, own in zip(chosen, kept):
                noise = torch.randn(p.shape, generator=generator, device=generator.device).to(p)
                if kind == MULTIPLICATIVE:
                    torch.addcmul(own, own, noise, value=sigma, out=p)
                else:
                    torch.add(own, noise, alpha=sigma, out=p)
        yield model
    finally:
        with torch.no_grad():
            for p, own in zip(chosen, kept):
                p.copy_(own)


def noisegrad(
    method: str | Callable[..., Tensor], sigma: float, n: int = 10, *, kind: str = MULTIPLICATIVE, pattern: str = "*"
) -> Callable[..., Tensor]:
    """NoiseGrad of any method: a method that averages its maps over ``n`` networks with shaken weights.

    Bykov et al. 2022, Eq. 2. The draws come from ``seed`` and are shared by all images; a stochastic method gets the
    same seed in every network, so that sigma = 0 is the method itself.

    Parameters
    ----------
    method : str or callable
        A name of the registry, or a function of the methods' signature.
    sigma, kind, pattern
        As in :func:`perturbed`; a sigma that suits a network is found by :func:`choose_sigma`.
    """
    base = resolve(method)
    check_noise(sigma, kind)
    if n < 1:
        raise ValueError(f"NoiseGrad averages over at least one network, not n={n}")

    def shaken(
        model: nn.Module, images: Tensor, targets: Tensor, *, seed: int = 0, batch_size: int | None = None
    ) -> Tensor:
        if not sigma:
            return base(model, images, targets, seed=seed, batch_size=batch_size)
        check(model, images, targets, batch_size)
        size, total = batch_size or fitting(model, images), 0.0
        generator = torch.Generator().manual_seed(derive(seed, WEIGHTS))
        for _ in range(n):
            with perturbed(model, sigma, generator, kind=kind, pattern=pattern):
                total = total + base(model, images, targets, seed=seed, batch_size=size)
        return total / n

    return shaken


def fusiongrad(
    method: str | Callable[..., Tensor],
    sigma_weights: float,
    sigma_input: float = SIGMA / 2,
    n_models: int = 10,
    n_inputs: int = 10,
    *,
    kind: str = MULTIPLICATIVE,
    pattern: str = "*",
) -> Callable[..., Tensor]:
    """FusionGrad of any method: NoiseGrad of its SmoothGrad, ``n_models`` x ``n_inputs`` maps (Bykov et al., Eq. 3).

    All networks see the same noisy inputs. The paper halves both sigmas.

    Parameters
    ----------
    sigma_weights, kind, pattern
        As in :func:`noisegrad`.
    sigma_input : float
        As in :func:`saliency_lib.attribution.smooth`: a share of each image's range.
    """
    smoothed = smooth(resolve(method), sigma_input, n_inputs)
    return noisegrad(smoothed, sigma_weights, n_models, kind=kind, pattern=pattern)


def variants(
    method: str | Callable[..., Tensor],
    sigma_weights: float,
    sigma_input: float = SIGMA,
    n: int = 10,
    n_models: int | None = None,
    n_inputs: int | None = None,
) -> dict[str, Callable[..., Tensor]]:
    """The four that Bykov et al. compare: ``baseline``, ``smoothgrad``, ``noisegrad``, and ``fusiongrad``, which halves
    both sigmas.

    Parameters
    ----------
    n : int
        Samples of SmoothGrad and NoiseGrad, and of each kind in FusionGrad unless ``n_models``, ``n_inputs`` say else.
    """
    base = resolve(method)
    return {
        "baseline": base,
        "smoothgrad": smooth(base, sigma_input, n),
        "noisegrad": noisegrad(base, sigma_weights, n),
        "fusiongrad": fusiongrad(base, sigma_weights / 2, sigma_input / 2, n_models or n, n_inputs or n),
    }


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
    among the labels. Draw k is the same noise at every sigma, times sigma.

    Raises
    ------
    ValueError
        If the network is no better than chance.
    """
    own, chance = _accuracies(model, images, labels, batch_size)
    return 1 - (_shaken(model, images, labels, sigma, n_draws, seed, batch_size, kind, pattern) - chance) / (
        own - chance
    )


def _shaken(model, images, labels, sigma, n_draws, seed, batch_size, kind, pattern) -> Tensor:
    """Accuracies with noise on the weights, (n_draws,) float64."""
    size, found = batch_size or fitting(model, images), []
    for draw in range(n_draws):
        generator = torch.Generator().manual_seed(derive(seed, LEVEL, draw))
        with perturbed(model, sigma, generator, kind=kind, pattern=pattern):
            found.append(_accuracy(model, images, labels, size))
    return torch.tensor(found, dtype=torch.float64)


def _accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int | None) -> float:
    return (logits(model, images, labels, batch_size).argmax(1) == labels).double().mean().item()


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

    Doubles sigma until the mean drop is twice as large, so that the crossing lies well inside, then halves the interval
    around it ``n_steps`` times. All levels share their draws, and what was looked at is made monotone before the
    crossing is read off, so that a lucky draw does no harm.

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
