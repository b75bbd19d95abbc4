"""How soon does the model find its class when a map's highest pixels come first, and lose it when they go first."""

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from saliency_lib.channels import finite
from saliency_lib.hooks import device_of
from saliency_lib.inference import check, fitting, gives_logits, logits
from saliency_lib.outputs import chances

KERNEL, SIGMA = 11, 5.0  # of the blur, in pixels


def insertion(
    model: nn.Module, images: Tensor, targets: Tensor, maps: Tensor, *, n_steps: int = 28, batch_size: int | None = None
) -> Tensor:
    """Area under the target's probability while pixels enter a blurred image, (..., n) float64; larger is better.

    Petsiuk et al. 2018 (RISE), as in Herdt et al. 2024, section 4.3: a Gaussian blur of 11 x 11 pixels and sigma 5.
    RISE's code blurs with zeros around the image, where torchvision mirrors it, and with a kernel whose edges are
    folded in; it scores the predicted class, and its sort leaves equal pixels in no order that can be relied on.

    Parameters
    ----------
    maps : Tensor
        (..., n, 1, h, w) at the images' size: several sets of maps share the first and the last point.
    n_steps : int
        As in :func:`curves`; 28 steps are 224 * 8 pixels each at 224 pixels.

    Raises
    ------
    ValueError
        For maps of another shape or not finite, a number of steps out of range, and images too small for the blur.
    """
    _check(model, images, targets, maps, n_steps, batch_size)
    height, width = images.shape[-2:]
    if min(height, width) <= KERNEL // 2:
        raise ValueError(f"a blur of {KERNEL} pixels needs images of {KERNEL // 2 + 1} or more, not {height} x {width}")
    blurred = gaussian_blur(images.detach(), [KERNEL, KERNEL], [SIGMA, SIGMA])
    return _area(curves(model, blurred, images, targets, maps, n_steps, batch_size), maps)


def deletion(
    model: nn.Module, images: Tensor, targets: Tensor, maps: Tensor, *, n_steps: int = 28, batch_size: int | None = None
) -> Tensor:
    """Area under the target's probability while pixels become the mean colour, (..., n) float64; smaller is better.

    Petsiuk et al. 2018 (RISE), as in Herdt et al. 2024, section 4.3; parameters and errors as in :func:`insertion`.
    """
    _check(model, images, targets, maps, n_steps, batch_size)
    return _area(curves(model, images, torch.zeros_like(images), targets, maps, n_steps, batch_size), maps)


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
    finite(maps)
    if not 1 <= n_steps <= height * width:
        raise ValueError(f"{height * width} pixels take 1 to {height * width} steps, not n_steps={n_steps}")


def _counts(pixels: int, n_steps: int) -> Tensor:
    """Pixels that are changed after 0 to ``n_steps`` steps."""
    return torch.tensor([round(k * pixels / n_steps) for k in range(n_steps + 1)])


def _area(found: Tensor, maps: Tensor) -> Tensor:
    """Trapezoid's area under curves (..., n_steps + 1) over the share of changed pixels in [0, 1]."""
    pixels = maps.shape[-2:].numel()
    return torch.trapezoid(found, _counts(pixels, found.shape[-1] - 1).to(found.device).double() / pixels)


def _probabilities(model: nn.Module, images: Tensor, targets: Tensor, size: int) -> Tensor:
    """Softmax of each image's target, (n,) float64 on the images' device."""
    shares = chances(logits(model, images, size).double())
    return shares.gather(1, targets.to(shares.device)[:, None])[:, 0]


@torch.no_grad()
def curves(
    model: nn.Module,
    begin: Tensor,
    end: Tensor,
    targets: Tensor,
    maps: Tensor,
    n_steps: int = 28,
    batch_size: int | None = None,
) -> Tensor:
    """Softmax of the target while pixels of ``begin`` become those of ``end``, (..., n, n_steps + 1) float64.

    Pixels change in order of falling map value, equal ones in reading order; after step k of ``n_steps`` it is
    round(k * h * w / n_steps) of them. As many maps go at once as images per pass.

    Parameters
    ----------
    begin, end : Tensor
        (n, c, h, w), and maps (..., n, 1, h, w).
    """
    size, device, shape = batch_size or fitting(model, begin), device_of(model, begin), maps.shape[-2:]
    pixels, ordered = shape.numel(), maps.flatten(-3).flatten(0, -2)
    counts = _counts(pixels, n_steps).to(device)
    found = torch.empty(len(ordered), n_steps + 1, dtype=torch.float64, device=device)
    with gives_logits(model, targets):
        for k, images in ((0, begin), (n_steps, end)):
            found[:, k] = _probabilities(model, images, targets, size).to(device).repeat(len(ordered) // len(images))
    for first in range(0, len(ordered), size):
        order = ordered[first : first + size].to(device).argsort(dim=1, descending=True, stable=True)
        places = torch.arange(pixels, device=device).expand_as(order)
        ranks = torch.empty_like(order).scatter_(1, order, places).view(-1, 1, *shape)
        image = torch.arange(first, first + len(order)) % len(begin)
        before, after, y = (each[image.to(each.device)].to(device) for each in (begin, end, targets))
        mixed = torch.cartesian_prod(*(torch.arange(k, device=device) for k in (n_steps - 1, len(order))))
        for start in range(0, len(mixed), size):
            step, row = mixed[start : start + size].T
            changed = ranks[row] < counts[step + 1].view(-1, 1, 1, 1)
            x = torch.where(changed, after[row], before[row])
            found[first + row, step + 1] = _probabilities(model, x, y[row], size)
    return found.to(begin.device).unflatten(0, maps.shape[:-3])
