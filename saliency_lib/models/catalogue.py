"""``build``: every network by name, with its own normalisation unless another is asked for."""

import re

from torch import nn

from saliency_lib.models import convnets, resnets
from saliency_lib.models.blocks import ACTIVATIONS, NORMS

RESNETS = (*resnets.LAYERS, "resnet_small", "resnet9")
PLAIN = ("vgg11", "vgg16", "vgg19", "lenet", "mlp", "cnn")
NAMES = (*RESNETS, *PLAIN)
CONVNET = re.compile(r"convnet-w(\d+)-d(\d+)-(none|max|avg)")


def build(
    name: str, num_classes: int, in_channels: int = 3, norm: str | None = None, activation: str = "relu", size: int = 32
) -> nn.Module:
    """A freshly initialised network; draws from PyTorch's global generator, as its layers do.

    Parameters
    ----------
    name : str
        One of ``NAMES``, or ``convnet-w16-d2-max`` for the family of Woerl et al. 4.2: width 16, two convolutions,
        pooling ``none``, ``max`` or ``avg``.
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
    """
    norm = norm or ("batch" if name in RESNETS else "none")
    if norm not in NORMS:
        raise ValueError(f"unknown norm {norm!r}; one of {sorted(NORMS)}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}; one of {sorted(ACTIVATIONS)}")
    layer, act = NORMS[norm], ACTIVATIONS[activation]
    if norm == "instance" and name in resnets.LAYERS and size <= 32:
        raise ValueError(
            f"{name} at {size} pixels ends in a 1x1 map, which instance normalisation cannot normalise; "
            "use resnet_small or larger pictures"
        )
    if match := CONVNET.fullmatch(name):
        width, depth = int(match[1]), int(match[2])
        if width < 1 or depth < 1:
            raise ValueError(f"{name!r} needs a width and a depth of at least 1")
        return convnets.convnet(width, depth, match[3], num_classes, in_channels, size, layer, act)
    if name in resnets.LAYERS:
        return resnets.torchvision_resnet(name, num_classes, in_channels, layer, act)
    if name == "resnet_small":
        return resnets.ResNetSmall(num_classes, in_channels, layer, act)
    if name == "resnet9":
        return resnets.ResNet9(num_classes, in_channels, layer, act)
    if name.startswith("vgg") and name in PLAIN:
        return convnets.vgg(name, num_classes, in_channels, layer, act)
    if name == "mlp":
        return convnets.mlp(num_classes, in_channels, size, act)
    if name in ("lenet", "cnn"):
        if size < 16:
            raise ValueError(f"{name} needs pictures of at least 16 pixels, not {size}")
        return getattr(convnets, name)(num_classes, in_channels, size, layer, act)
    raise ValueError(f"unknown network {name!r}; one of {sorted(NAMES)}, or convnet-w16-d2-max")
