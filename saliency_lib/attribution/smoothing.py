"""Averages, and variances, of a method's maps over noisy copies of the image."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from saliency_lib.attribution.gradients import input_gradient
from saliency_lib.attribution.integrated import integrated_gradients
from saliency_lib.attribution.method import Function, composition, resolve
from saliency_lib.inference import check, fitting
from saliency_lib.runtime.seeds import INPUTS, derive

SIGMA = 0.15  # of each image's range; Smilkov et al. and Bykov et al. name 10 to 20 %


def _checked(sigma: float, n_samples: int) -> None:
    if not 0 <= sigma < float("inf") or n_samples < 1:
        raise ValueError(f"noise needs a finite sigma >= 0 and at least one sample, not {sigma} and {n_samples}")


def deviation(images: Tensor, share: float) -> Tensor:
    """Standard deviation of SmoothGrad's noise, (n, 1, 1, 1): a share of each image's range."""
    flat = images.flatten(1)
    return share * (flat.amax(1) - flat.amin(1)).view(-1, 1, 1, 1)


def _noisy_maps(base, sigma, n_samples, model, images, targets, seed, batch_size) -> Iterator[Tensor]:
    """Maps of the noisy copies, a few copies of all images at a time: (copies, n, c, h, w)."""
    check(model, images, targets, batch_size)
    generator = torch.Generator().manual_seed(derive(seed, INPUTS))
    noise = torch.randn(n_samples, *images.shape[1:], generator=generator).to(images)
    size, scale = batch_size or fitting(model, images), deviation(images, sigma)
    for part in noise.split(max(1, size // len(images))):
        copies = (images + scale * part[:, None]).flatten(0, 1)
        maps = base(model, copies, targets.repeat(len(part)), seed=seed, batch_size=size)
        yield maps.unflatten(0, (len(part), -1))


def smooth(base: str | Function, sigma: float = SIGMA, n_samples: int = 25) -> Function:
    """SmoothGrad of any method: a method that averages the maps of noisy copies (Smilkov et al. 2017).

    The noise is drawn from ``seed`` and shared by all images; a stochastic base gets ``seed`` for every copy. At
    sigma = 0 it is the base itself. captum's NoiseTunnel does the same but takes no seed, and its draws depend on the
    batch.

    Parameters
    ----------
    sigma : float
        Standard deviation of the noise, as a share of each image's range (maximum less minimum).
    """
    _checked(sigma, n_samples)
    base = resolve(base)

    def smoothed(model, images, targets, *, seed=0, batch_size=None):
        if sigma == 0:
            return base(model, images, targets, seed=seed, batch_size=batch_size)
        parts = _noisy_maps(base, sigma, n_samples, model, images, targets, seed, batch_size)
        return sum(maps.sum(0) for maps in parts) / n_samples

    return smoothed


@composition("Smilkov et al. 2017", forwards=25, backwards=25, stochastic=True)
def smoothgrad(*, sigma: float = SIGMA, n_samples: int = 25):
    """Mean gradient of noisy copies, (n, c, h, w), logit per unit of normalised input; signed.

    Options are as in :func:`smooth`.
    """
    return smooth(input_gradient, sigma, n_samples)


@composition("Woerl et al. 2023, 4.3", forwards=200, backwards=200, stochastic=True)
def smoothgrad_ig(*, sigma: float = SIGMA, n_samples: int = 10, n_steps: int = 20):
    """Mean integrated gradients of noisy copies, (n, c, h, w), in logits; signed.

    "SmoothGrad on top of Integrated Gradients"; samples and steps are ours.
    """
    return smooth(partial(integrated_gradients, n_steps=n_steps), sigma, n_samples)


@composition("Adebayo et al. 2018", forwards=25, backwards=25, stochastic=True, signed=False)
def vargrad(*, sigma: float = SIGMA, n_samples: int = 25):
    """Unbiased variance of the gradient over noisy copies, (n, c, h, w); never negative, which inflates its SNR.

    They compare it with SmoothGrad, whose options it has.
    """
    _checked(sigma, n_samples)
    if n_samples < 2:
        raise ValueError(f"a variance needs at least two samples, not {n_samples}")

    def variance(model, images, targets, *, seed, batch_size):
        n, mean, m2 = 0, 0.0, 0.0
        for maps in _noisy_maps(input_gradient, sigma, n_samples, model, images, targets, seed, batch_size):
            for sample in maps.double():  # Welford: no difference of large numbers
                n += 1
                delta = sample - mean
                mean = mean + delta / n
                m2 = m2 + delta * (sample - mean)
        return (m2 / (n_samples - 1)).float()

    return variance
