"""NoiseGrad and FusionGrad: a method's maps averaged over networks whose weights are shaken (Bykov et al. 2022)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from torch import Tensor, nn

from saliency_lib.attribution.method import Function, resolve
from saliency_lib.attribution.smoothing import SIGMA, smooth
from saliency_lib.estimates import Estimate, over_members
from saliency_lib.inference import accuracy, check, fitting, relative_drop
from saliency_lib.runtime.seeds import LEVELS, WEIGHTS, derive

MULTIPLICATIVE, ADDITIVE = "multiplicative", "additive"
LEAST, MOST = 1e-6, 100.0  # of a sigma that is looked at


def _check_noise(sigma: float, kind: str) -> None:
    if not 0 <= sigma < float("inf"):
        raise ValueError(f"noise on weights needs a finite sigma >= 0, not {sigma}")
    if kind not in (MULTIPLICATIVE, ADDITIVE):
        raise ValueError(f"unknown kind of noise {kind!r}; one of {[ADDITIVE, MULTIPLICATIVE]}")


@contextmanager
def _shaking(
    model: nn.Module, sigma: float, kind: str = MULTIPLICATIVE, pattern: str = "*"
) -> Iterator[Callable[[torch.Generator], None]]:
    """What draws the model's weights anew, always from those it came with, which it gets back after the block."""
    _check_noise(sigma, kind)
    named = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
    if not (chosen := [p for name, p in named.items() if fnmatchcase(name, pattern)]):
        raise ValueError(f"no parameter's name matches {pattern!r}; one of {list(named)}")
    kept = [p.detach().clone() for p in chosen]

    @torch.no_grad()
    def shake(generator: torch.Generator) -> None:
        for p, own in zip(chosen, kept):
            noise = torch.randn(p.shape, generator=generator, device=generator.device).to(p)
            unit = own if kind == MULTIPLICATIVE else torch.ones_like(own)
            torch.addcmul(own, unit, noise, value=sigma, out=p)

    try:
        yield shake
    finally:
        for p, own in zip(chosen, kept):
            p.detach().copy_(own)


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
    with _shaking(model, sigma, kind, pattern) as shake:
        shake(generator)
        yield model


def noisegrad(
    method: str | Function, sigma: float, n: int = 10, *, kind: str = MULTIPLICATIVE, pattern: str = "*"
) -> Function:
    """NoiseGrad of any method: a method that averages its maps over ``n`` networks with shaken weights.

    Bykov et al. 2022, Eq. 2. The draws come from ``seed`` and are shared by all images; a stochastic method gets the
    same seed in every network, so that sigma = 0 is the method itself.

    Parameters
    ----------
    method : str or callable
        A name in ``METHODS``, or a function of the methods' signature, as ``partial(gradcam, layer="mid")``.
    sigma, kind, pattern
        As in :func:`perturbed`; a sigma that suits a network is found by :func:`choose_sigma`.
    """
    base = resolve(method)
    _check_noise(sigma, kind)
    if n < 1:
        raise ValueError(f"NoiseGrad averages over at least one network, not n={n}")

    def shaken(model, images, targets, *, seed=0, batch_size=None):
        if not sigma:
            return base(model, images, targets, seed=seed, batch_size=batch_size)
        check(model, images, targets, batch_size)
        size, total = batch_size or fitting(model, images), 0.0
        generator = torch.Generator().manual_seed(derive(seed, WEIGHTS))
        with _shaking(model, sigma, kind, pattern) as shake:
            for _ in range(n):
                shake(generator)
                total = total + base(model, images, targets, seed=seed, batch_size=size)
        return total / n

    return shaken


def fusiongrad(
    method: str | Function, sigma_weights: float, sigma_input: float = SIGMA / 2, n_models: int = 10, n_inputs: int = 10
) -> Function:
    """FusionGrad of any method: NoiseGrad of its SmoothGrad, ``n_models`` x ``n_inputs`` maps (Bykov et al., Eq. 3).

    All networks see the same noisy inputs. The paper halves both sigmas, those of :func:`noisegrad` and of
    :func:`saliency_lib.attribution.smooth`, which is a share of each image's range.
    """
    return noisegrad(smooth(resolve(method), sigma_input, n_inputs), sigma_weights, n_models)


def variants(
    method: str | Function, sigma_weights: float, sigma_input: float = SIGMA, n: int = 10, n_grid: int | None = None
) -> dict[str, Function]:
    """The four that Bykov et al. compare: ``baseline``, ``smoothgrad``, ``noisegrad``, and ``fusiongrad``, which halves
    both sigmas. All take ``n`` samples, FusionGrad ``n_grid`` networks and inputs (default: ``n`` too)."""
    base, n_grid = resolve(method), n if n_grid is None else n_grid
    return {
        "baseline": base,
        "smoothgrad": smooth(base, sigma_input, n),
        "noisegrad": noisegrad(base, sigma_weights, n),
        "fusiongrad": fusiongrad(base, sigma_weights / 2, sigma_input / 2, n_grid, n_grid),
    }


def _drops(model, images, labels, n_draws: int, seed: int, **noise: str) -> Callable[[float], Tensor]:
    """The drop in accuracy of every draw, as a function of sigma."""
    check(model, images, labels)
    size = fitting(model, images)
    relative = relative_drop(accuracy(model, images, labels, size), labels)

    def at(sigma: float) -> Tensor:
        found = []
        with _shaking(model, sigma, **noise) as shake:
            for draw in range(1, n_draws + 1):
                shake(torch.Generator().manual_seed(derive(seed, LEVELS, draw)))
                found.append(accuracy(model, images, labels, size))
        return relative(found)

    return at


def accuracy_drop(
    model: nn.Module, images: Tensor, labels: Tensor, sigma: float, *, n_draws: int = 10, seed: int = 0
) -> Tensor:
    """Relative drop in accuracy of every draw of noise on the weights, (n_draws,) float64; 0 none, 1 down to guessing.

    Bykov et al. 2022: AD = 1 - (ACC(sigma) - chance) / (ACC(0) - chance). Chance is one over the number of classes
    among the labels, which should be all that the network knows. Draw k is the same noise at every sigma, times sigma.
    Raises ValueError for a network that is no better than chance.
    """
    return _drops(model, images, labels, n_draws, seed)(sigma)


@dataclass(frozen=True)
class SigmaChoice:
    """A noise level and the curve that it was read from.

    Attributes
    ----------
    sigma : Estimate
        Where the curve, made monotone, crosses the drop that was asked for; the interval is over draws of the noise.
    sigmas : tuple of float
        The levels that were looked at, from 0 upwards.
    drops : Tensor
        (sigmas, draws), relative drop in accuracy of every draw.
    """

    sigma: Estimate
    sigmas: tuple[float, ...]
    drops: Tensor


def choose_sigma(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    drop: float = 0.05,
    *,
    n_draws: int = 10,
    n_steps: int = 4,
    seed: int = 0,
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
    drops_at = _drops(model, images, labels, n_draws, seed, kind=kind, pattern=pattern)
    found = _looked_at(drops_at, drop, n_draws, n_steps)
    sigmas = sorted(found)
    drops = torch.stack([found[sigma] for sigma in sigmas])

    def crossing(draws: Tensor) -> float:  # (draws, sigmas)
        rising = isotonic_regression(draws.mean(0).numpy()).x
        above = int(np.argmax(rising >= drop))
        ends = slice(above - 1, above + 1)
        return float(np.interp(drop, rising[ends], sigmas[ends])) if rising[above] >= drop else float("nan")

    return SigmaChoice(over_members(crossing, drops.T), tuple(sigmas), drops)


def _looked_at(drops_at: Callable[[float], Tensor], drop: float, n_draws: int, n_steps: int) -> dict[float, Tensor]:
    """Drops of the draws by sigma: from 0 to well above where their mean crosses ``drop``, and ever nearer to that."""
    found = {0.0: torch.zeros(n_draws, dtype=torch.float64)}

    def costs(sigma: float, share: float) -> bool:
        if sigma not in found:
            found[sigma] = drops_at(sigma)
        return found[sigma].mean().item() >= share

    low = high = 0.1
    while not costs(high, min(2 * drop, (1 + drop) / 2)):
        if 2 * high > MOST:
            raise ValueError(f"noise of sigma {high:g} costs too small a share of the accuracy to tell where {drop} is")
        high *= 2
    while costs(low, drop) and low > LEAST:
        low /= 2
    high = min(sigma for sigma in found if costs(sigma, drop))
    low = max(sigma for sigma in found if sigma < high)
    for _ in range(n_steps):
        middle = (low + high) / 2
        low, high = (low, middle) if costs(middle, drop) else (middle, high)
    return found
