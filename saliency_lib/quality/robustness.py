"""Does a map stay when the image hardly changes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from saliency_lib.attribution.method import resolve
from saliency_lib.channels import abs_sum
from saliency_lib.inference import check, fitting
from saliency_lib.runtime.seeds import NUDGES, derive


def max_sensitivity(
    method: str | Callable[..., Tensor],
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    radius: float = 0.2,
    n_samples: int = 10,
    redraw: bool = False,
    maps: Tensor | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> Tensor:
    """Largest relative change of a map among slightly changed images, (n,) float64; smaller is more robust.

    Yeh et al. 2019, as in Quantus 0.6: max over samples of ||map(x + u) - map(x)|| / ||map(x)||, with u uniform in
    [-radius, radius], in normalised units. The map is that of
    :func:`saliency_lib.channels.abs_sum`. A stochastic method keeps its draws, or with ``redraw`` has others for every
    changed image, as when it is called again.

    Parameters
    ----------
    maps : Tensor, optional
        The method's own of these images with this seed, by ``abs_sum``, where they are there already.

    Raises
    ------
    ValueError
        For a radius that is not positive, no sample, or maps of another shape than the method's.
    """
    if not radius > 0 or n_samples < 1:
        raise ValueError(f"sensitivity needs radius > 0 and at least one sample, not {radius} and {n_samples}")
    check(model, images, targets, batch_size)
    base, size = resolve(method), batch_size or fitting(model, images)

    def reduced(x: Tensor, draws: int) -> Tensor:
        return abs_sum(base(model, x, targets, seed=draws, batch_size=size)).double()

    still, changes = reduced(images, seed) if maps is None else maps.double(), []
    for k in range(1, n_samples + 1):
        own = derive(seed, NUDGES, k)
        generator = torch.Generator().manual_seed(own)
        nudge = (2 * torch.rand(images.shape, generator=generator) - 1).to(images) * radius
        moved = reduced(images + nudge, derive(own, 1) if redraw else seed)
        if still.shape != moved.shape:
            raise ValueError(f"the method gives maps {tuple(moved.shape)}, not {tuple(still.shape)}")
        changes.append((moved - still).flatten(1).norm(dim=1))
    return torch.stack(changes).amax(0) / still.flatten(1).norm(dim=1)
