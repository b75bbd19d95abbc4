"""Gradients along a path from a reference to the image."""

import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients
from torch import Tensor, nn

from saliency_lib.attribution import layers
from saliency_lib.attribution.references import baseline_or_zero, references_or_noise
from saliency_lib.hooks import hooked
from saliency_lib.inference import check, in_batches, scores

QUADRATURES = ("gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid")


def integrated_gradients(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    n_steps: int = 50,
    quadrature: str = "gausslegendre",
    baseline: Tensor | None = None,
    return_error: bool = False,
    layer: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Input minus baseline, times the mean gradient on the straight path between them, (n, c, h, w), in logits; signed.

    Sundararajan et al. 2017. The sum of a map is the difference of the target's logit between image and baseline, but
    for the error of the quadrature.

    Parameters
    ----------
    batch_size : int, optional
        Images per pass, steps included; one image's steps are spread over several passes where they do not fit.
    quadrature : str
        One of ``QUADRATURES``.
    baseline : Tensor, optional
        (c, h, w), normalised; default: zero, the data's mean colour.
    return_error : bool
        Also give the completeness error, (n,): sum of the map less difference of logits.
    layer : str, optional
        Explain the output of this layer, at its own channels and resolution, (n, c', h', w'), on the straight path
        between its values for baseline and image. A map sums to the difference of logits where nothing goes past it.
    """
    if quadrature not in QUADRATURES:
        raise ValueError(f"unknown quadrature {quadrature!r}; one of {sorted(QUADRATURES)}")
    if n_steps < 2:
        raise ValueError(f"integrated gradients need at least two steps, not n_steps={n_steps}")
    check(model, images, targets, batch_size)
    module = model if layer is None else layers.find(model, layer)
    zero = baseline_or_zero(baseline, images)

    def forward(x: Tensor) -> Tensor:
        # After captum's hook, whose value what follows may change in place.
        with hooked([] if layer is None else [module], lambda _module, _inputs, out: out.clone()):
            return model(x)

    method = IntegratedGradients(forward) if layer is None else LayerIntegratedGradients(forward, module)

    def maps(x: Tensor, y: Tensor, size: int) -> Tensor:
        found = method.attribute(
            x,
            zero.to(x),
            target=y,
            n_steps=n_steps,
            method=quadrature,
            internal_batch_size=size if len(x) * n_steps > size else None,
        )
        return found if layer is None else layers.feature_maps(found, layer)

    with layers.used(model, module, layer):
        found = in_batches(maps, model, images, targets, batch_size, n_steps)
    if not return_error:
        return found
    at_image, at_baseline = (scores(model, x, targets, batch_size) for x in (images, zero.to(images).expand_as(images)))
    return found, found.flatten(1).sum(1) - (at_image - at_baseline)


def gradient_shap(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    n_samples: int = 25,
    references: Tensor | None = None,
    sigma: float = 0.0,
) -> Tensor:
    """Expected gradients: as integrated gradients, at random points of paths from random references, (n, c, h, w).

    Lundberg and Lee 2017 (GradientExplainer), as in captum's GradientShap, but with draws from ``seed`` that all images
    share. In logits; signed.

    Parameters
    ----------
    references : Tensor, optional
        (m, c, h, w), normalised: the distribution to compare with, best taken from the training data. Default: noise
        with the data's mean and standard deviation.
    sigma : float
        Standard deviation of noise on the image, in units of the normalised input.
    """
    check(model, images, targets, batch_size)
    if n_samples < 1 or not sigma >= 0:
        raise ValueError(f"GradientSHAP needs at least one sample and sigma >= 0, not {n_samples} and {sigma}")
    generator = torch.Generator().manual_seed(seed)
    pool = references_or_noise(references, images, generator)
    ends = pool[torch.randint(len(pool), (n_samples,), generator=generator)]
    alphas = torch.rand(n_samples, generator=generator).view(-1, 1, 1, 1)
    noise = sigma * torch.randn(n_samples, *images.shape[1:], generator=generator) if sigma else None

    def maps(x: Tensor, y: Tensor, size: int) -> Tensor:
        total = torch.zeros_like(x)
        for k in torch.arange(n_samples).split(max(1, size // len(x))):
            reference, alpha = ends[k].to(x)[:, None], alphas[k].to(x)[:, None]
            span = x - reference + (0 if noise is None else noise[k].to(x)[:, None])  # samples, images, c, h, w
            points = (reference + alpha * span).flatten(0, 1).contiguous(memory_format=torch.channels_last)
            logits = model(points.requires_grad_()).gather(1, y.repeat(len(k))[:, None])
            total += (torch.autograd.grad(logits.sum(), points)[0].view_as(span) * span).sum(0)
        return total / n_samples

    return in_batches(maps, model, images, targets, batch_size, n_samples)
