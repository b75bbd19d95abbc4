"""What a map loses when parts of the image are hidden: no gradient is taken."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_lib.inference import check, in_batches


@torch.no_grad()
def _scores(model, x: Tensor, y: Tensor, keep: Tensor, size: int, outputs) -> Tensor:
    """``outputs`` of the target for every image under every mask; keep (masks, 1, h, w) in [0, 1]: (images, masks)."""
    found = []
    for part in keep.split(max(1, size // len(x))):
        shown = x * part[:, None]  # masks, images, c, h, w; what is hidden is zero, the mean colour
        logits = model(shown.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        found.append(outputs(logits).gather(1, y.repeat(len(part))[:, None]).view(len(part), len(x)))
    return torch.cat(found).T


def occlusion(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    window: int | None = None,
    stride: int | None = None,
) -> Tensor:
    """Drop of the target's logit when a square is hidden, mean over the squares that cover a pixel, (n, 1, h, w).

    Zeiler and Fergus 2014; signed. As captum's Occlusion, whose window need not end at the border either. Hidden pixels
    take the data's mean colour.

    Parameters
    ----------
    window, stride : int, optional
        In pixels; default: a quarter and an eighth of the shorter side, 49 squares where that is a multiple of 8.
    """
    check(model, images, targets, batch_size)
    h, w = images.shape[-2:]
    window = max(1, min(h, w) // 4) if window is None else window
    stride = max(1, window // 2) if stride is None else stride
    if not 1 <= stride <= window <= min(h, w):
        raise ValueError(f"occlusion needs 1 <= stride <= window <= {min(h, w)} pixels, not {stride} and {window}")
    corners = [
        (top, left) for top in range(0, h - window + stride, stride) for left in range(0, w - window + stride, stride)
    ]
    hidden = torch.zeros(len(corners), 1, h, w)
    for square, (top, left) in zip(hidden, corners):
        square[:, top : top + window, left : left + window] = 1

    def maps(x: Tensor, y: Tensor, size: int) -> Tensor:
        squares = hidden.to(x)
        keep = torch.cat([torch.ones_like(squares[:1]), 1 - squares])
        scores = _scores(model, x, y, keep, size, lambda logits: logits)
        drops = scores[:, :1] - scores[:, 1:]
        return (drops @ squares.flatten(1)).view(-1, 1, h, w) / squares.sum(0)

    return in_batches(maps, model, images, targets, batch_size, len(corners) + 1)


def rise(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    n_masks: int = 1000,
    cells: int = 7,
    p: float = 0.5,
) -> Tensor:
    """Mean of random masks weighted by the target's softmax probability under them, (n, 1, h, w); never negative.

    Petsiuk et al. 2018. The masks are drawn from ``seed`` and shared by all images; hidden pixels take the data's mean
    colour.

    Parameters
    ----------
    cells : int
        Cells of the coarse grid that a mask is enlarged from, each way.
    p : float
        Probability that a cell is shown.
    """
    check(model, images, targets, batch_size)
    if n_masks < 1 or cells < 1 or not 0 < p < 1:
        raise ValueError(
            f"RISE needs at least one mask and one cell, and 0 < p < 1, not n_masks={n_masks}, cells={cells} and p={p}"
        )
    h, w = images.shape[-2:]
    generator = torch.Generator().manual_seed(seed)
    grids = (torch.rand(n_masks, 1, cells, cells, generator=generator) < p).float()
    high, wide = -(-h // cells), -(-w // cells)  # of a cell, in pixels, rounded up
    tops = torch.randint(high, (n_masks,), generator=generator)
    lefts = torch.randint(wide, (n_masks,), generator=generator)

    def masks(part: Tensor) -> Tensor:
        large = F.interpolate(
            grids[part], (high * (cells + 1), wide * (cells + 1)), mode="bilinear", align_corners=False
        )
        return torch.stack([m[:, t : t + h, u : u + w] for m, t, u in zip(large, tops[part], lefts[part])])

    def maps(x: Tensor, y: Tensor, size: int) -> Tensor:
        total = torch.zeros(len(x), h * w, device=x.device)
        for part in torch.arange(n_masks).split(max(1, size // len(x))):
            keep = masks(part).to(x)
            scores = _scores(model, x, y, keep, size, lambda logits: logits.softmax(1))
            total += scores @ keep.flatten(1)
        return total.view(-1, 1, h, w) / (n_masks * p)

    return in_batches(maps, model, images, targets, batch_size, n_masks)
