"""How soon does the model find its class when a map's highest pixels come first, and lose it when they go first."""

import math

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from saliency_lib.hooks import device_of
from saliency_lib.inference import check, fitting, logits


def insertion(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    maps: Tensor,
    *,
    n_steps: int = 28,
    start: Tensor | None = None,
    kernel: int = 11,
    sigma: float = 5.0,
    batch_size: int | None = None,
    return_curves: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Area under the target's probability while pixels enter a blurred image, (..., n) float64; larger is better.

    Petsiuk et al. 2018 (RISE), as in Herdt et al. 2024, section 4.3. Pixels enter in order of falling map value, equal
    ones in reading order; after step k of ``n_steps`` there are round(k * h * w / n_steps), 224 * 8 per step at 224
    pixels. The score is the softmax of the target, the area a trapezoid's over the share of pixels in [0, 1].

    RISE's code blurs with zeros around the image, where torchvision mirrors it, and with a kernel whose edges are
    folded in; it scores the predicted class, and its sort leaves equal pixels in no order that can be relied on.

    Parameters
    ----------
    maps : Tensor
        (..., n, 1, h, w) at the images' size: several sets of maps share the first and the last point.
    start : Tensor, optional
        The images' shape, where no pixel has entered; default: the images blurred by ``kernel`` (pixels, odd) and
        ``sigma`` (pixels).
    return_curves : bool
        Return ``(areas, curves)`` with the probabilities after 0 to ``n_steps`` steps, (..., n, n_steps + 1) float64.

    Raises
    ------
    ValueError
        For maps of another shape or not finite, a number of steps out of range, and images too small for the blur.
    """
    _check(model, images, targets, maps, n_steps, batch_size)
    size = batch_size or fitting(model, images)
    if start is None:
        height, width = images.shape[-2:]
        if not 1 <= kernel < 2 * min(height, width) or kernel % 2 == 0 or not sigma > 0:
            raise ValueError(
                f"images of {height} x {width} are blurred by an odd kernel below {2 * min(height, width)} and a "
                f"sigma > 0, not kernel={kernel} and sigma={sigma}; or pass start="
            )
        blurred = (gaussian_blur(x, [kernel, kernel], [sigma, sigma]) for x in images.detach().split(size))
        start = torch.cat(list(blurred))
    elif start.shape != images.shape or not torch.isfinite(start).all():
        raise ValueError(f"start is finite and of the images' shape {tuple(images.shape)}, not {tuple(start.shape)}")
    areas, curves = _curves(model, start.to(images), images, targets, maps, n_steps, size)
    return (areas, curves) if return_curves else areas


def deletion(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    maps: Tensor,
    *,
    n_steps: int = 28,
    fill: float = 0.0,
    batch_size: int | None = None,
    return_curves: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Area under the target's probability while pixels are erased, (..., n) float64; smaller is better.

    Petsiuk et al. 2018 (RISE), as in Herdt et al. 2024, section 4.3; order, steps and area as in :func:`insertion`.

    Parameters
    ----------
    maps, return_curves
        As in :func:`insertion`.
    fill : float
        What erased pixels become, in normalised units; default: the mean colour.

    Raises
    ------
    ValueError
        For maps of another shape or not finite, a number of steps out of range, and a fill that is not finite.
    """
    _check(model, images, targets, maps, n_steps, batch_size)
    if not math.isfinite(fill):
        raise ValueError(f"pixels are filled with a finite value, not fill={fill}")
    size, filled = batch_size or fitting(model, images), images.new_full((), fill).expand_as(images)
    areas, curves = _curves(model, images, filled, targets, maps, n_steps, size)
    return (areas, curves) if return_curves else areas


def _check(
    model: nn.Module, images: Tensor, targets: Tensor, maps: Tensor, n_steps: int, batch_size: int | None
) -> None:
    check(model, images, targets, batch_size)
    n, _, height, width = images.shape
    if maps.shape[-4:] != (n, 1, height, width):
        raise ValueError(
            f"images {tuple(images.shape)} need maps (..., {n}, 1, {height}, {width}), not {tuple(maps.shape)}; "
            "saliency_lib.channels makes one channel of several, attribution.layers.upsampled resizes"
        )
    if not torch.isfinite(maps).all():
        raise ValueError("the maps hold values that are not finite, so their pixels have no order")
    if not 1 <= n_steps <= height * width:
        raise ValueError(f"{height * width} pixels take 1 to {height * width} steps, not n_steps={n_steps}")


def _probabilities(model: nn.Module, images: Tensor, targets: Tensor, size: int) -> Tensor:
    """Softmax of each image's target, (n,) float64 on the images' device."""
    shares = logits(model, images, size).double().softmax(1)
    return shares.gather(1, targets.to(shares.device)[:, None])[:, 0]


@torch.no_grad()
def _curves(
    model: nn.Module, begin: Tensor, end: Tensor, targets: Tensor, maps: Tensor, n_steps: int, size: int
) -> tuple[Tensor, Tensor]:
    """Areas and curves while pixels of ``begin`` become those of ``end``: as many maps at once as images per pass."""
    device, shape = device_of(model, begin), maps.shape[-2:]
    pixels, ordered = shape.numel(), maps.flatten(-3).flatten(0, -2)
    counts = torch.tensor([round(k * pixels / n_steps) for k in range(n_steps + 1)], device=device)
    curves = torch.empty(len(ordered), n_steps + 1, dtype=torch.float64, device=device)
    for k, images in ((0, begin), (n_steps, end)):
        curves[:, k] = _probabilities(model, images, targets, size).to(device).repeat(len(ordered) // len(images))
    for first in range(0, len(ordered), size):
        order = ordered[first : first + size].to(device).argsort(dim=1, descending=True, stable=True)
        places = torch.arange(pixels, device=device).expand_as(order)
        ranks = torch.empty_like(order).scatter_(1, order, places).view(-1, 1, *shape)
        image = torch.arange(first, first + len(order)) % len(begin)
        before, after, y = (each[image.to(each.device)].to(device) for each in (begin, end, targets))
        visits = torch.cartesian_prod(*(torch.arange(k, device=device) for k in (n_steps - 1, len(order))))
        for visit in range(0, len(visits), size):
            step, row = visits[visit : visit + size].T
            changed = ranks[row] < counts[step + 1].view(-1, 1, 1, 1)
            x = torch.where(changed, after[row], before[row])
            curves[first + row, step + 1] = _probabilities(model, x, y[row], size)
    areas = torch.trapezoid(curves, counts.double() / pixels)
    return tuple(each.to(begin.device).unflatten(0, maps.shape[:-3]) for each in (areas, curves))
