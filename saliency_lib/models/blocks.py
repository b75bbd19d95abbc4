"""What the networks are made of: normalisation and activation by name, and He initialisation."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "softplus": nn.Softplus,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "none": nn.Identity,
}
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    "none": lambda channels: nn.Identity(),
}


def he_init(model: nn.Module) -> nn.Module:
    """He et al. 2015 for every convolution, as torchvision's networks do; linear layers keep PyTorch's default."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


class Blur(nn.Module):
    """Every second pixel of pictures blurred by [1, 2, 1] in both directions (Zhang 2019), which folds no stripes of
    period two into them: (n, channels, h, w) to (n, channels, h / 2, w / 2)."""

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
        return F.avg_pool2d(F.avg_pool2d(padded, 2, stride=1), 2)  # two means of two are the mean by [1, 2, 1]


def at_least(pixels: int, size: int) -> None:
    """ValueError for pictures that are smaller than a network takes."""
    if size < pixels:
        raise ValueError(f"this network needs pictures of at least {pixels} pixels, not {size}")
