"""Gradients of one output by the input, or by a layer."""

import torch
from torch import Tensor

from saliency_lib.attribution import layers
from saliency_lib.attribution.baselines import baseline_or_zero
from saliency_lib.attribution.method import method
from saliency_lib.outputs import chances


@method("Simonyan et al. 2014; Woerl et al. 2023, Eq. 6", forwards=1, backwards=1)
def input_gradient(model, images, seed, *, layer: str | None = None):
    """Gradients of the target's logit by the input, (n, c, h, w), logit per unit of normalised input; signed.

    No softmax, no absolute value.

    Parameters
    ----------
    layer : str, optional
        Explain the output of this layer, at its own channels and resolution, (n, c', h', w'), as Herdt et al. 2024 do.

    Raises
    ------
    ValueError
        For an unknown layer, one that is not called just once, or one whose output is not (n, c, h, w).
    """

    def kernel(x, y, size):
        with layers.explained(model, layer, x.requires_grad_()) as values:
            scores = model(x).gather(1, y[:, None])
        return torch.autograd.grad(scores.sum(), values)[0]

    return kernel


@method("Woerl et al. 2023, Eq. 7-8", forwards=1, backwards=1)
def probability_gradient(model, images, seed):
    """Gradients of the target's softmax probability by the input, (n, c, h, w); they vanish at confident outputs.

    Given there as the reason to use logits.
    """

    def kernel(x, y, size):
        of_target = chances(model(x.requires_grad_())).gather(1, y[:, None])
        return torch.autograd.grad(of_target.sum(), x)[0]

    return kernel


@method("Shrikumar et al. 2017; Adebayo et al. 2018", forwards=1, backwards=1)
def gradient_x_input(model, images, seed, *, baseline: Tensor | None = None):
    """Gradient times input minus baseline, (n, c, h, w), in logits; signed.

    DeepLIFT was made to improve on it.

    Parameters
    ----------
    baseline : Tensor, optional
        (c, h, w), normalised, what counts as nothing; default: zero, the data's mean colour.
    """
    start = baseline_or_zero(baseline, images)
    gradient = input_gradient.kernel(model, images, seed)
    return lambda x, y, size: gradient(x, y, size) * (x - start.to(x))
