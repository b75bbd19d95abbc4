"""The criteria of Bykov et al. 2022 on one network's input gradients under noise: one value per image."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from saliency_lib.attribution.gradients import input_gradient
from saliency_lib.channels import abs_sum
from saliency_lib.noisegrad import fusiongrad, variants
from saliency_lib.quality.faithfulness import faithfulness_correlation
from saliency_lib.quality.localisation import relevance_rank_accuracy
from saliency_lib.quality.robustness import max_sensitivity
from saliency_lib.quality.texture import gini


class Noise(NamedTuple):
    """FusionGrad's noise, of which NoiseGrad, SmoothGrad and the plain map are cases: sigmas, and how many draws."""

    weights: float = 0.0
    input: float = 0.0
    networks: int = 1
    inputs: int = 1

    def of(self, method: str | Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The method under this noise: again a method."""
        return fusiongrad(method, self.weights, self.input, self.networks, self.inputs)


def localisation(
    model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor, *, noise: Noise, seed: int = 0
) -> Tensor:
    """Relevance rank accuracy of absolute input gradients, colours summed after that, (n,) float64."""
    maps = noise.of("input_gradient")(model, images, targets, seed=seed)
    return relevance_rank_accuracy(abs_sum(maps), masks)


def two_readings(
    model: nn.Module, images: Tensor, targets: Tensor, *, seed: int = 0, batch_size: int | None = None
) -> Tensor:
    """The gradient and its absolute value, (n, 2, c, h, w): a method, so that both are averaged over the same draws."""
    gradient = input_gradient(model, images, targets, batch_size=batch_size)
    return torch.stack([gradient, gradient.abs()], 1)


def noisy_maps(
    model: nn.Module, images: Tensor, targets: Tensor, *, sigma: float, n: int = 10, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Maps of :func:`saliency_lib.noisegrad.variants` in two readings, (4, n, 1, h, w) each, colours summed.

    Parameters
    ----------
    sigma : float
        NoiseGrad's; FusionGrad halves it.
    n : int
        Samples of SmoothGrad and NoiseGrad, and of each kind in FusionGrad.

    Returns
    -------
    tuple of Tensor
        Absolute values of the signed mean, and the mean of absolute values in every draw.
    """
    methods = variants(two_readings, sigma, n=n).values()
    return torch.stack([abs_sum(f(model, images, targets, seed=seed)) for f in methods]).unbind(2)


def _sensitivity(
    model: nn.Module, images: Tensor, targets: Tensor, sigma: float, n: int, n_nudges: int, seed: int, setting: dict
) -> Tensor:
    """Max-sensitivity of the four variants, (4, n) float64."""
    options = {"n_samples": n_nudges, "seed": seed} | setting
    methods = variants("input_gradient", sigma, n=n).values()
    return torch.stack([max_sensitivity(method, model, images, targets, **options) for method in methods])


def robustness(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    masks: Tensor,
    *,
    settings: Sequence[dict],
    sigma: float,
    n: int = 10,
    n_nudges: int = 10,
    seed: int = 0,
) -> Tensor:
    """Max-sensitivity of the four variants (lower is better) by several settings, (settings, 4, n) float64.

    Parameters
    ----------
    masks
        Not used: all criteria have one signature.
    settings : sequence of dict
        ``radius`` and ``redraw`` of :func:`saliency_lib.quality.max_sensitivity`.
    sigma, n
        As in :func:`noisy_maps`.
    n_nudges : int
        How many times each image is changed a little.
    """
    return torch.stack([_sensitivity(model, images, targets, sigma, n, n_nudges, seed, s) for s in settings])


def criteria(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    masks: Tensor,
    *,
    sigma: float,
    n: int = 10,
    n_nudges: int = 10,
    n_runs: int = 100,
    seed: int = 0,
) -> Tensor:
    """Bykov et al. 2022, Tab. 1, of the four variants, (5, 4, n) float64.

    Localisation, faithfulness, robustness (max-sensitivity: lower is better), sparseness, and localisation once more of
    the mean of absolute values. Parameters as in :func:`robustness` and
    :func:`saliency_lib.quality.faithfulness_correlation`.
    """
    maps, absolute_first = noisy_maps(model, images, targets, sigma=sigma, n=n, seed=seed)
    faithful = faithfulness_correlation(model, images, targets, maps, n_runs=n_runs, seed=seed)
    robust = _sensitivity(model, images, targets, sigma, n, n_nudges, seed, {})
    found = [relevance_rank_accuracy(maps, masks), faithful, robust, gini(maps)]
    return torch.stack([*found, relevance_rank_accuracy(absolute_first, masks)])
