"""Networks without shortcuts: VGG, LeNet, the MLP and CNN of Adebayo et al., the convnets of Woerl et al. 4.2."""

import torchvision
from torch import nn

from saliency_lib.models.blocks import he_init, in_channels


def vgg(name: str, num_classes: int, channels: int, norm, activation) -> nn.Module:
    """torchvision's vgg11/16/19 (Simonyan and Zisserman 2014), without normalisation unless ``norm`` gives one."""
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
        model.features[0] = in_channels(model.features[0], channels)
    return model


def lenet(num_classes: int, channels: int, size: int, norm, activation) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) with max pooling; 28-pixel pictures are padded to 32."""
    side = (size + (4 if size == 28 else 0) - 4) // 2
    side = (side - 4) // 2
    return he_init(
        nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=2 if size == 28 else 0),
            norm(6),
            activation(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            norm(16),
            activation(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * side**2, 120),
            activation(),
            nn.Linear(120, 84),
            activation(),
            nn.Linear(84, num_classes),
        )
    )


def mlp(num_classes: int, channels: int, size: int, activation) -> nn.Module:
    """The multi-layer perceptron of Adebayo et al. 2018: 2500, 1500 and 500 units."""
    widths, layers = [channels * size**2, 2500, 1500, 500], [nn.Flatten()]
    for old, new in zip(widths, widths[1:]):
        layers += [nn.Linear(old, new), activation()]
    return nn.Sequential(*layers, nn.Linear(500, num_classes))


def cnn(num_classes: int, channels: int, size: int, norm, activation) -> nn.Module:
    """The CNN of Adebayo et al. 2018: conv 5x5 32, pool, conv 5x5 64, pool, 1024 units."""
    return he_init(
        nn.Sequential(
            nn.Conv2d(channels, 32, 5, padding=2),
            norm(32),
            activation(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2),
            norm(64),
            activation(),
            nn.MaxPool2d(2),
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

    The paper gives the width of the first layer; ours is the same in all layers.
    """
    layers, side = [], size
    for old in [channels] + [width] * (depth - 1):
        layers += [nn.Conv2d(old, width, 3, padding=1), norm(width), activation()]
        if pool != "none":
            layers.append({"max": nn.MaxPool2d, "avg": nn.AvgPool2d}[pool](2))
            side //= 2
    if side < 1:
        raise ValueError(
            f"depth {depth} with {pool} pooling leaves nothing of {size}-pixel pictures; "
            f"use at most {size.bit_length() - 1} layers"
        )
    return he_init(nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * side**2, num_classes)))
