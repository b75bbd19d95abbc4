"""GradCAM: feature maps of one layer, weighted by their mean gradients."""

import torch

from saliency_lib.attribution import layers
from saliency_lib.attribution.method import method


@method("Selvaraju et al. 2019", forwards=1, backwards=1)
def gradcam(model, images, seed, *, layer: str = "top", relu: bool = False):
    """Class activation maps at a layer, (n, 1, h, w), bilinearly resized to the images; signed, in logits.

    The authors' ReLU is an option, since maps without negative values inflate the SNR.

    Parameters
    ----------
    layer : str
        A module's name, or ``top`` (the last convolutional stage) or ``mid`` (the lower middle one).
    relu : bool
        Cut negative values at the layer's own resolution, as the paper does.

    Raises
    ------
    ValueError
        For an unknown layer, one that is not called just once, or one whose output is not (n, c, h, w).
    """

    def kernel(x, y, size):
        with layers.explained(model, layer, x.requires_grad_()) as values:
            scores = model(x).gather(1, y[:, None])
        weights = torch.autograd.grad(scores.sum(), values)[0].mean((2, 3), keepdim=True)
        maps = (weights * values[0]).sum(1, keepdim=True)
        return layers.upsampled(maps.relu() if relu else maps, x)

    return kernel
