"""A network that segments, made of a trained classifier (Herdt et al. 2024, Fig. 9 and 10; Long et al. 2015)."""

from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_lib.attribution import layers
from saliency_lib.hooks import copied
from saliency_lib.runtime.seeds import seeded


class Segmenter(nn.Module):
    """The stages of a residual network, each read by a 1x1 convolution, enlarged and summed: background or object.

    Only the read-outs are trained, by :meth:`fit`. The explained layers are ``stages.layer1`` and so on. ``seed`` draws
    the read-outs; ``images``, (n, c, h, w), show them the widths of the stages.
    """

    def __init__(self, net: nn.Module, images: Tensor, *, seed: int = 0):
        super().__init__()
        parts = dict(copied(net).named_children())
        if not (names := layers.stages(net)) or names != [f"layer{k + 1}" for k in range(len(names))]:
            raise ValueError(f"a segmenter reads the stages layer1, layer2, ... of a residual network, not {names}")
        self.stages = nn.ModuleDict({name: parts.pop(name) for name in names})
        self.stem = nn.Sequential(*(parts[name] for name in parts if name not in ("avgpool", "fc")))
        with seeded(seed):
            self.heads = nn.ModuleList(nn.LazyConv2d(2, 1) for _ in self.stages)
            self.to(images.device).eval()(images[:2])

    def pixels(self, x: Tensor) -> Tensor:
        """Logits of background and object, (n, 2, h, w)."""
        size, x, read = x.shape[-2:], self.stem(x), []
        for stage, head in zip(self.stages.values(), self.heads):
            x = stage(x)
            read.append(F.interpolate(head(x), size, mode="bilinear"))
        return reduce(torch.add, read)

    def forward(self, x: Tensor) -> Tensor:
        """The same summed over the picture, (n, 2): what is explained."""
        return self.pixels(x).sum((2, 3))

    def fit(self, images: Tensor, masks: Tensor, *, epochs: int = 3, seed: int = 0) -> "Segmenter":
        """Teach the read-outs the masks, (n, h, w) bool: Adam, batches of 50 of 1000 images drawn anew each epoch."""
        generator = torch.Generator().manual_seed(seed)
        adam = torch.optim.Adam(self.heads.parameters(), lr=0.01)
        self.requires_grad_(False)
        self.heads.requires_grad_(True)
        for _ in range(epochs):
            for rows in torch.randperm(len(images), generator=generator)[:1000].split(50):
                with torch.enable_grad():
                    loss = F.cross_entropy(self.pixels(images[rows]), masks[rows].long())
                adam.zero_grad()
                loss.backward()
                adam.step()
        return self.requires_grad_(False)
