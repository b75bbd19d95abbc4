"""Maps that no network has a part in, to compare others with: random values, and edges."""

from collections.abc import Sequence

import torch
from scipy.stats import truncnorm
from skimage import filters
from torch import Tensor
from torch.nn.init import trunc_normal_


def random_maps(law: str, shape: Sequence[int], seed: int) -> Tensor:
    """Maps that no network has a part in: values of mean 0 and deviation 1, independent, float32.

    ``law`` is ``"normal"``, ``"truncated normal"`` (cut off at two deviations of the normal) or ``"uniform"``.
    """
    generator = torch.Generator().manual_seed(seed)
    if law == "uniform":
        return (2 * torch.rand(shape, generator=generator) - 1) * 3**0.5
    if law not in ("normal", "truncated normal"):
        raise ValueError(f"unknown law {law!r}; one of 'normal', 'truncated normal' and 'uniform'")
    draws = torch.randn(shape, generator=generator)
    if law == "normal":
        return draws
    return trunc_normal_(draws, a=-2, b=2, generator=generator) / truncnorm(-2, 2).std()


def sobel(pictures: Tensor) -> Tensor:
    """Edges of pictures or maps (n, 1, h, w) by Sobel's filter: never negative, same shape, float32, on the CPU."""
    if pictures.ndim != 4 or pictures.shape[1] != 1:
        raise ValueError(f"edges are of grey pictures (n, 1, h, w), not {tuple(pictures.shape)}")
    found = [torch.as_tensor(filters.sobel(picture[0].detach().cpu().numpy())) for picture in pictures]
    return torch.stack(found)[:, None].float()
