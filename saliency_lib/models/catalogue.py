"""``build``: every network by name, with its own normalisation unless another is asked for."""

import re
from collections.abc import Callable
from functools import partial

from torch import nn

from saliency_lib.models import convnets, resnets
from saliency_lib.models.blocks import ACTIVATIONS, NORMS

# Each is called with the numbers of classes and channels, the size of the pictures, a norm and an activation.
BUILDERS: dict[str, Callable[..., nn.Module]] = {
    **{name: partial(resnets.torchvision_resnet, name) for name in resnets.LAYERS},
    "resnet18_small_stem": resnets.resnet18_small_stem,
    "resnet_small": resnets.ResNetSmall,
    "resnet9": resnets.ResNet9,
    **{name: partial(convnets.vgg, name) for name in ("vgg11", "vgg16", "vgg19")},
    "lenet": convnets.lenet,
    "mlp": convnets.mlp,
    "cnn": convnets.cnn,
}
NAMES = tuple(BUILDERS)
CONVNET = re.compile(r"convnet-w(\d+)-d(\d+)-(none|max|avg|stride|blur)")


def build(
    name: str, num_classes: int, in_channels: int = 3, norm: str | None = None, activation: str = "relu", size: int = 32
) -> nn.Module:
    """A freshly initialised network; draws from PyTorch's global generator, as its layers do.

    Parameters
    ----------
    name : str
        One of ``NAMES``, or ``convnet-w16-d2-max`` for the family of Woerl et al. 4.2: width 16, two convolutions,
        ``none``, ``max`` or ``avg`` pooling, ``stride`` (convolutions of stride two) or ``blur`` (Zhang 2019).
    norm : str, optional
        ``"batch"``, ``"instance"`` or ``"none"``; default: batch normalisation in residual networks, none in others.
    activation : str
        ``"relu"``, ``"softplus"``, ``"gelu"``, ``"tanh"`` or ``"none"``.
    size : int
        Side of the pictures in pixels, for networks whose first linear layer depends on it.

    Returns
    -------
    nn.Module
        Maps (n, in_channels, size, size) to logits (n, num_classes).

    Raises
    ------
    ValueError
        For an unknown name, norm or activation, and pictures that are too small for the network.
    """
    norm = norm or ("batch" if name.startswith("resnet") else "none")
    if norm not in NORMS:
        raise ValueError(f"unknown norm {norm!r}; one of {sorted(NORMS)}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}; one of {sorted(ACTIVATIONS)}")
    if match := CONVNET.fullmatch(name):
        builder: Callable[..., nn.Module] = partial(convnets.convnet, int(match[1]), int(match[2]), match[3])
    elif name in BUILDERS:
        builder = BUILDERS[name]
    else:
        raise ValueError(f"unknown network {name!r}; one of {sorted(NAMES)}, or convnet-w16-d2-max")
    return builder(num_classes, in_channels, size, NORMS[norm], ACTIVATIONS[activation])
