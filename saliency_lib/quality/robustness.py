"""Does a map stay when the image hardly changes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from saliency_lib.attribution.registry import resolve
from saliency_lib.channels import abs_sum
from saliency_lib.inference import check, fitting
from saliency_lib.runtime.seeds import NUDGES, REDRAWS, derive


def max_sensitivity(
    method: str | Callable[..., Tensor],
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    radius: float = 0.2,
    n_samples: int = 10,
    redraw: bool = False,
    reduce: Callable[[Tensor], Tensor] = abs_sum,
    maps: Tensor | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> Tensor:
    """Largest relative change of a map among slightly changed images, (n,) float64; smaller is more robust.

    Yeh et al. 2019, as in Quantus 0.6: max over samples of ||map(x + u) - map(x)|| / ||map(x)||, with u uniform in
    [-radius, radius], in normalised units.

    Parameters
    ----------
    redraw : bool
        A stochastic method draws anew for every sample, so that its own sampling counts; default: it keeps its draws.
    reduce : callable
        Channel reduction of the maps before they are compared.
    maps : Tensor, optional
        The method's maps of the images as they are, with the same seed and reduced; default: they are computed.

    Raises
    ------
    ValueError
        For a radius that is not positive, no sample, or maps of other images.
    """
    if not radius > 0 or n_samples < 1:
        raise ValueError(f"sensitivity needs radius > 0 and at least one sample, not {radius} and {n_samples}")
    check(model, images, targets, batch_size)
    base, size = resolve(method), batch_size or fitting(model, images)

    def reduced(x: Tensor, own: int) -> Tensor:
        return reduce(base(model, x, targets, seed=own, batch_size=size)).double()

    still, worst = reduced(images, seed) if maps is None else maps.detach().double(), None
    for k in range(1, n_samples + 1):
        generator = torch.Generator().manual_seed(derive(seed, NUDGES, k))
        nudge = (2 * torch.rand(images.shape, generator=generator) - 1).to(images) * radius
        moved = reduced(images + nudge, derive(seed, REDRAWS, k) if redraw else seed)
        if moved.shape != still.shape:
            raise ValueError(f"maps {tuple(still.shape)} are not those of the method, which are {tuple(moved.shape)}")
        change = (moved - still).flatten(1).norm(dim=1)
        worst = change if worst is None else torch.maximum(worst, change)
    return worst / still.flatten(1).norm(dim=1)
