"""What a map loses when parts of the image are hidden: no gradient is taken."""

import torch
from torch import Tensor
from torch.nn import functional as F

from saliency_lib.attribution.method import method
from saliency_lib.outputs import chances

CELLS, SHOWN = 7, 0.5  # of RISE: cells of the coarse grid, each way, and the probability that one is shown


@torch.no_grad()
def _scores(model, x: Tensor, y: Tensor, keep: Tensor, size: int, outputs) -> Tensor:
    """``outputs`` of the target for every image under every mask; keep (masks, 1, h, w) in [0, 1]: (images, masks)."""
    found = []
    for part in keep.split(max(1, size // len(x))):
        shown = x * part[:, None]  # masks, images, c, h, w; what is hidden is zero, the mean colour
        logits = model(shown.flatten(0, 1))
        found.append(outputs(logits).gather(1, y.repeat(len(part))[:, None]).view(len(part), len(x)))
    return torch.cat(found).T


@method("Zeiler and Fergus 2014", forwards=50, backwards=0)
def occlusion(model, images, seed):
    """Drop of the target's logit when a square is hidden, mean over the squares that cover a pixel, (n, 1, h, w).

    Signed. As captum's Occlusion, whose window need not end at the border either. Hidden pixels take the data's mean
    colour. The square's side is a quarter of the image's shorter side, and it moves by half of that: 49 squares where
    the side is a multiple of 8.
    """
    h, w = images.shape[-2:]
    window = max(1, min(h, w) // 4)
    stride = max(1, window // 2)
    corners = [
        (top, left) for top in range(0, h - window + stride, stride) for left in range(0, w - window + stride, stride)
    ]
    hidden = torch.zeros(len(corners), 1, h, w)
    for square, (top, left) in zip(hidden, corners):
        square[:, top : top + window, left : left + window] = 1

    def kernel(x, y, size):
        squares = hidden.to(x)
        keep = torch.cat([torch.ones_like(squares[:1]), 1 - squares])
        scores = _scores(model, x, y, keep, size, lambda logits: logits)
        drops = scores[:, :1] - scores[:, 1:]
        return (drops @ squares.flatten(1).to(drops)).view(-1, 1, h, w) / squares.sum(0)

    return kernel, len(corners) + 1


@method("Petsiuk et al. 2018", forwards=1000, backwards=0, stochastic=True, signed=False)
def rise(model, images, seed, *, n_masks: int = 1000):
    """Mean of random masks weighted by the target's softmax probability under them, (n, 1, h, w); never negative.

    The masks are drawn from ``seed`` and shared by all images; hidden pixels take the data's mean colour. A mask is
    enlarged from a grid of 7 x 7 cells, each of them shown with probability 1/2.
    """
    if n_masks < 1:
        raise ValueError(f"RISE needs at least one mask, not n_masks={n_masks}")
    h, w = images.shape[-2:]
    generator = torch.Generator().manual_seed(int(seed))
    grids = (torch.rand(n_masks, 1, CELLS, CELLS, generator=generator) < SHOWN).float()
    high, wide = -(-h // CELLS), -(-w // CELLS)  # of a cell, in pixels, rounded up
    tops = torch.randint(high, (n_masks,), generator=generator)
    lefts = torch.randint(wide, (n_masks,), generator=generator)

    def masks(part: Tensor) -> Tensor:
        side = high * (CELLS + 1), wide * (CELLS + 1)
        large = F.interpolate(grids[part], side, mode="bilinear", align_corners=False)
        return torch.stack([m[:, t : t + h, u : u + w] for m, t, u in zip(large, tops[part], lefts[part])])

    def kernel(x, y, size):
        total = torch.zeros(len(x), h * w, device=x.device)
        for part in torch.arange(n_masks).split(max(1, size // len(x))):
            keep = masks(part).to(x)
            scores = _scores(model, x, y, keep, size, chances)
            total += scores @ keep.flatten(1).to(scores)
        return total.view(-1, 1, h, w) / (n_masks * SHOWN)

    return kernel, n_masks
