"""Methods out of methods: their maps averaged over networks whose weights are shaken."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from saliency_lib.attribution.method import resolve
from saliency_lib.attribution.smoothing import SIGMA, smooth
from saliency_lib.inference import check, fitting
from saliency_lib.noisegrad.weights import MULTIPLICATIVE, check_noise, perturbed
from saliency_lib.runtime.seeds import WEIGHTS, derive


def noisegrad(
    method: str | Callable[..., Tensor], sigma: float, n: int = 10, *, kind: str = MULTIPLICATIVE, pattern: str = "*"
) -> Callable[..., Tensor]:
    """NoiseGrad of any method: a method that averages its maps over ``n`` networks with shaken weights.

    Bykov et al. 2022, Eq. 2. The draws come from ``seed`` and are shared by all images; a stochastic method gets the
    same seed in every network, so that sigma = 0 is the method itself.

    Parameters
    ----------
    method : str or callable
        A name of the registry, or a function of the methods' signature, as ``partial(gradcam, layer="mid")``.
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
        "fusiongrad": fusiongrad(
            base,
            sigma_weights / 2,
            sigma_input / 2,
            n if n_models is None else n_models,
            n if n_inputs is None else n_inputs,
        ),
    }
