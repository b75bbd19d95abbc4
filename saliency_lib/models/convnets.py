"""Networks without shortcuts: VGG, LeNet, the MLP and CNN of Adebayo et al., the convnets of Woerl et al. 4.2."""

import torchvision
from torch import nn

from saliency_lib.models.blocks import Blur, at_least, he_init


def vgg(name: str, num_classes: int, channels: int, size: int, norm, activation) -> nn.Module:
    """torchvision's vgg11/16/19 (Simonyan and Zisserman 2014), without normalisation unless ``norm`` gives one."""
    at_least(32, size)
    model = getattr(torchvision.models, f"{name}_bn")(num_classes=num_classes)
    for sequence in (model.features, model.classifier):
        for key, module in list(sequence.named_children()):
            if isinstance(module, nn.ReLU):
                sequence[int(key)] = activation()
            elif isinstance(module, nn.BatchNorm2d):
                sequence[int(key)] = norm(module.num_features)
    model.features = nn.Sequential(
        *(m for m in model.features if activation is nn.Identity or type(m) is not nn.Identity)
    )
    if channels != 3:
        model.features[0] = he_init(nn.Conv2d(channels, 64, 3, padding=1))
    return model


def _conv(old: int, new: int, kernel: int, padding: int, norm, activation, pool=None) -> list[nn.Module]:
    """A convolution, its norm and activation, and pooling by two."""
    return [nn.Conv2d(old, new, kernel, padding=padding), norm(new), activation(), *([pool(2)] if pool else [])]


def lenet(num_classes: int, channels: int, size: int, norm, activation) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) with max pooling; 28-pixel pictures are padded to 32."""
    at_least(16, size)
    padding = 2 if size == 28 else 0
    side = ((size + 2 * padding - 4) // 2 - 4) // 2
    return he_init(
        nn.Sequential(
            *_conv(channels, 6, 5, padding, norm, activation, nn.MaxPool2d),
            *_conv(6, 16, 5, 0, norm, activation, nn.MaxPool2d),
            nn.Flatten(),
            nn.Linear(16 * side**2, 120),
            activation(),
            nn.Linear(120, 84),
            activation(),
            nn.Linear(84, num_classes),
        )
    )


def mlp(num_classes: int, channels: int, size: int, norm, activation) -> nn.Module:
    """The multi-layer perceptron of Adebayo et al. 2018: 2500, 1500 and 500 units; without any norm."""
    widths, layers = [channels * size**2, 2500, 1500, 500], list[nn.Module]([nn.Flatten()])
    for old, new in zip(widths, widths[1:]):
        layers += [nn.Linear(old, new), activation()]
    return nn.Sequential(*layers, nn.Linear(500, num_classes))


def cnn(num_classes: int, channels: int, size: int, norm, activation) -> nn.Module:
    """The CNN of Adebayo et al. 2018: conv 5x5 32, pool, conv 5x5 64, pool, 1024 units."""
    at_least(16, size)
    return he_init(
        nn.Sequential(
            *_conv(channels, 32, 5, 2, norm, activation, nn.MaxPool2d),
            *_conv(32, 64, 5, 2, norm, activation, nn.MaxPool2d),
            nn.Flatten(),
            nn.Linear(64 * (size // 4) ** 2, 1024),
            activation(),
            nn.Linear(1024, num_classes),
        )
    )


def convnet(
    width: int, depth: int, pool: str, num_classes: int, channels: int, size: int, norm, activation
) -> nn.Module:
    """Woerl et al. 2023, 4.2: ``depth`` times 3x3 convolution, activation, pooling by 2, then a linear classifier.

    Two ways of halving are added to theirs: ``stride`` (the convolution's own) and ``blur`` (Zhang 2019).

    The paper gives the width of the first layer; ours is the same in all layers.
    """
    if width < 1 or depth < 1:
        raise ValueError(f"a convnet needs a width and a depth of at least 1, not {width} and {depth}")
    side = size if pool == "none" else size >> depth
    if pool in ("stride", "blur") and size % 2**depth:
        raise ValueError(f"{pool} halves a side {depth} times, so {size} pixels must divide by {2**depth}")
    if side < 1:
        raise ValueError(
            f"depth {depth} with {pool} pooling leaves nothing of {size}-pixel pictures; "
            f"use at most {size.bit_length() - 1} layers"
        )
    layers, pooling = [], {"max": nn.MaxPool2d, "avg": nn.AvgPool2d, "blur": lambda by: Blur()}.get(pool)
    for old in [channels] + [width] * (depth - 1):
        layers += _conv(old, width, 3, 1, norm, activation, pooling)
        if pool == "stride":
            layers[-3] = nn.Conv2d(old, width, 3, 2, 1)
    return he_init(nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * side**2, num_classes)))
