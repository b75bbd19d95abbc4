"""Averages, and variances, of a method's maps over noisy copies of the image."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from saliency_lib.attribution.gradients import input_gradient
from saliency_lib.attribution.integrated import integrated_gradients
from saliency_lib.inference import check, fitting
from saliency_lib.runtime.seeds import INPUTS, derive

SIGMA = 0.15  # of each image's range; Smilkov et al. and Bykov et al. name 10 to 20 %


def check_samples(sigma: float, n_samples: int) -> None:
    """Raise ValueError for noise on the input that is not finite or negative, or without samples."""
    if not 0 <= sigma < float("inf") or n_samples < 1:
        raise ValueError(f"noise needs a finite sigma >= 0 and at least one sample, not {sigma} and {n_samples}")


def _noisy_maps(base, model, images, targets, seed, batch_size, sigma, n_samples):
    """Maps of the noisy copies, a few copies of all images at a time: (copies, n, c, h, w)."""
    check(model, images, targets, batch_size)
    check_samples(sigma, n_samples)
    generator = torch.Generator().manual_seed(derive(seed, INPUTS))
    noise = torch.randn(n_samples, *images.shape[1:], generator=generator).to(images)
    flat = images.flatten(1)
    deviation = sigma * (flat.amax(1) - flat.amin(1)).view(-1, 1, 1, 1)
    size = batch_size or fitting(model, images)
    for part in noise.split(max(1, size // len(images))):
        copies = (images + deviation * part[:, None]).flatten(0, 1)
        maps = base(model, copies, targets.repeat(len(part)), seed=seed, batch_size=size)
        yield maps.unflatten(0, (len(part), -1))


def smooth(base: Callable[..., Tensor], sigma: float = SIGMA, n_samples: int = 25) -> Callable[..., Tensor]:
    """SmoothGrad of any method: a method that averages the maps of noisy copies (Smilkov et al. 2017).

    The noise is drawn from ``seed`` and shared by all images; a stochastic base gets ``seed`` for every copy. At
    sigma = 0 it is the base itself. captum's NoiseTunnel does the same but takes no seed, and its draws depend on the
    batch.

    Parameters
    ----------
    sigma : float
        Standard deviation of the noise, as a share of each image's range (maximum less minimum).
    """
    check_samples(sigma, n_samples)

    def smoothed(
        model: nn.Module, images: Tensor, targets: Tensor, *, seed: int = 0, batch_size: int | None = None
    ) -> Tensor:
        if sigma == 0:
            return base(model, images, targets, seed=seed, batch_size=batch_size)
        parts = _noisy_maps(base, model, images, targets, seed, batch_size, sigma, n_samples)
        return sum(maps.sum(0) for maps in parts) / n_samples

    return smoothed


def smoothgrad(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    sigma: float = SIGMA,
    n_samples: int = 25,
) -> Tensor:
    """Mean gradient of noisy copies, (n, c, h, w), logit per unit of normalised input; signed.

    Smilkov et al. 2017; see :func:`smooth`.
    """
    return smooth(input_gradient, sigma, n_samples)(model, images, targets, seed=seed, batch_size=batch_size)


def smoothgrad_ig(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    sigma: float = SIGMA,
    n_samples: int = 10,
    n_steps: int = 20,
) -> Tensor:
    """Mean integrated gradients of noisy copies, (n, c, h, w), in logits; signed.

    Woerl et al. 2023, 4.3 ("SmoothGrad on top of Integrated Gradients"); samples and steps are ours.
    """
    base = partial(integrated_gradients, n_steps=n_steps)
    return smooth(base, sigma, n_samples)(model, images, targets, seed=seed, batch_size=batch_size)


def vargrad(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    sigma: float = SIGMA,
    n_samples: int = 25,
) -> Tensor:
    """Unbiased variance of the gradient over noisy copies, (n, c, h, w); never negative, which inflates its SNR.

    Adebayo et al. 2018, who compare it with SmoothGrad.
    """
    if n_samples < 2:
        raise ValueError(f"a variance needs at least two samples, not {n_samples}")
    n, mean, m2 = 0, 0.0, 0.0
    for maps in _noisy_maps(input_gradient, model, images, targets, seed, batch_size, sigma, n_samples):
        for sample in maps.double():  # Welford: no difference of large numbers
            n += 1
            delta = sample - mean
            mean = mean + delta / n
            m2 = m2 + delta * (sample - mean)
    return (m2 / (n_samples - 1)).float()
