"""Random changes of training images, of every picture in a batch its own."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def flip_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of a batch (n, c, h, w), and shift each picture by up to an eighth of its side, edges repeated."""
    n, _, h, w = images.shape
    flips = torch.rand(n, generator=generator) < 0.5
    pad = max(1, h // 8)
    shifts = torch.randint(0, 2 * pad + 1, (2, n), generator=generator)
    padded = F.pad(images.float(), (pad,) * 4, mode="replicate").to(images.dtype)
    columns = torch.where(flips[:, None], torch.arange(w).flip(0), torch.arange(w)) + shifts[1][:, None]
    rows = torch.arange(h) + shifts[0][:, None]
    batch = torch.arange(n)[:, None, None].to(images.device)
    picked = padded.permute(0, 2, 3, 1)[batch, rows[:, :, None].to(images.device), columns[:, None].to(images.device)]
    return picked.permute(0, 3, 1, 2)


def resized_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of a batch (n, c, h, w), and enlarge to all of each picture a part of it, 35 to 100 % of its area.

    The part is up to a third longer one way than the other, as in Szegedy et al. 2015 with less of a zoom.
    """
    chance = torch.rand(5, len(images), generator=generator)
    area, shape = 0.35 + 0.65 * chance[0], (math.log(4 / 3) * (2 * chance[1] - 1)).exp()
    side = torch.stack([(area * shape).sqrt(), (area / shape).sqrt()], 1).clamp(max=1)  # across and down
    centre = (1 - side) * (2 * chance[2:4].T - 1)
    side[:, 0] *= torch.where(chance[4] < 0.5, -1, 1)
    grid = F.affine_grid(torch.cat([torch.diag_embed(side), centre[:, :, None]], 2), list(images.shape), False)
    found = F.grid_sample(images.float(), grid.to(images.device), padding_mode="border", align_corners=False)
    return (found if images.is_floating_point() else found.round()).to(images.dtype)


AUGMENT = {"flip_crop": flip_crop, "resized_crop": resized_crop}  # by name
