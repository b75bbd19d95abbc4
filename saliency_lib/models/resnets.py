"""Residual networks: torchvision's, with one module per activation, and two small ones for 32-pixel pictures."""

import torch
from torch import Tensor, nn
from torchvision.models import resnet

from saliency_lib.models.blocks import NORMS, at_least, he_init

LAYERS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


ONE_PIXEL = "pictures this small end in a 1x1 map, which instance normalisation cannot normalise; take larger ones"


class BasicBlock(resnet.BasicBlock):
    """torchvision's block with one activation module per use, so that hooks and DeepLIFT see each of them."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu2(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(resnet.Bottleneck):
    """torchvision's bottleneck with one activation module per use."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu3(out + (x if self.downsample is None else self.downsample(x)))


def _activate(block: nn.Module, activation) -> None:
    block.relu = activation()
    block.relu2 = activation()
    if isinstance(block, Bottleneck):
        block.relu3 = activation()


def torchvision_resnet(name: str, num_classes: int, channels: int, size: int, norm, activation) -> nn.Module:
    """resnet18/34/50/101 (He et al. 2016) as torchvision builds them; ImageNet state dicts load unchanged."""
    if norm is NORMS["instance"] and size <= 32:
        raise ValueError(ONE_PIXEL)
    block = BasicBlock if name in ("resnet18", "resnet34") else Bottleneck
    model = resnet.ResNet(block, LAYERS[name], num_classes=num_classes, norm_layer=norm)
    model.relu = activation()
    for module in model.modules():
        if isinstance(module, block):
            _activate(module, activation)
    if channels != 3:
        model.conv1 = he_init(nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False))
    return model


def resnet18_small_stem(num_classes: int, channels: int, size: int, norm, activation) -> nn.Module:
    """resnet18 for pictures of 32 pixels: its first convolution is 3x3 without a stride, and no pooling follows."""
    model = torchvision_resnet("resnet18", num_classes, channels, 4 * size, norm, activation)  # whose maps are as large
    model.conv1 = he_init(nn.Conv2d(channels, 64, 3, padding=1, bias=False))
    model.maxpool = nn.Identity()
    return model


class ResNetSmall(nn.Module):
    """A residual network for 32-pixel pictures, 0.3 million parameters.

    Stride-2 stem, then four stages of one block each, ``layer1`` to ``layer4``; at 32 px their maps are 16, 16, 8
    and 4 pixels wide, so that GradCAM of the last stage is a map and not one number.
    """

    def __init__(self, num_classes: int, channels: int, size: int, norm, activation):
        super().__init__()
        if norm is NORMS["instance"] and size <= 8:
            raise ValueError(ONE_PIXEL)

        def stage(old: int, new: int, stride: int = 1) -> nn.Sequential:
            shortcut = None
            if old != new:
                shortcut = nn.Sequential(nn.Conv2d(old, new, 1, stride=stride, bias=False), norm(new))
            block = BasicBlock(old, new, stride, shortcut, norm_layer=norm)
            _activate(block, activation)
            return nn.Sequential(block)

        self.conv1 = nn.Conv2d(channels, 16, 3, stride=2, padding=1, bias=False)
        self.bn1, self.relu = norm(16), activation()
        self.layer1 = stage(16, 16)
        self.layer2 = stage(16, 32)
        self.layer3 = stage(32, 64, stride=2)
        self.layer4 = stage(64, 128, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(128, num_classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Residual(nn.Sequential):
    """Its modules in a row, added to the input."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class ResNet9(nn.Module):
    """The nine-layer residual network of the DAWNBench entries, as a stand-in for the ResNet-9 of Bykov et al. 2022,
    whose details are in an appendix that is not part of its text."""

    stages = ("prep", "res1", "layer2", "res3")

    def __init__(self, num_classes: int, channels: int, size: int, norm, activation):
        super().__init__()
        at_least(8, size)

        def conv(old: int, new: int, pool: bool = False) -> nn.Sequential:
            layers = [nn.Conv2d(old, new, 3, padding=1, bias=False), norm(new), activation()]
            return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))

        self.prep = conv(channels, 64)
        self.layer1 = conv(64, 128, pool=True)
        self.res1 = Residual(conv(128, 128), conv(128, 128))
        self.layer2 = conv(128, 256, pool=True)
        self.layer3 = conv(256, 512, pool=True)
        self.res3 = Residual(conv(512, 512), conv(512, 512))
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.fc = nn.Linear(512, num_classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(self.prep(x))
        x = self.res3(self.layer3(self.layer2(self.res1(x))))
        return self.fc(torch.flatten(self.pool(x), 1))
