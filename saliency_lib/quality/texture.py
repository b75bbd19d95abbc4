"""How the values of a map or a picture lie: rough from pixel to pixel, in a checkerboard, on few pixels, in colour."""

import torch
from scipy import ndimage, optimize
from torch import Tensor
from torch.nn import functional as F

from saliency_lib.channels import finite


def _centred(maps: Tensor) -> Tensor:
    """Maps (..., c, h, w) in float64, each channel divided by its largest absolute value, then less its mean."""
    if maps.ndim < 3 or not maps.shape[-3:].numel():
        raise ValueError(f"expected maps (..., c, h, w) with values in them, not {tuple(maps.shape)}")
    values = finite(maps).detach().double()
    values = values / values.abs().amax((-2, -1), keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    return values - values.mean((-2, -1), keepdim=True)


def total_variation(maps: Tensor) -> Tensor:
    """Mean absolute step to the lower and the right neighbour, together, in units of the map's own deviation, (...).

    Herdt et al. 2024, Eq. 1 and 2; float64, 0 for a constant map. Each channel (h, w) is made zero in the mean and
    divided by its mean absolute value, but by no less than 1e-6 of its largest value before; the sum over all
    neighbours is divided by c * h * w.

    Parameters
    ----------
    maps : Tensor
        (..., c, h, w), of any scale: theirs clamps the map as it comes, so that very small ones look smooth.

    Raises
    ------
    ValueError
        For fewer axes and values that are not finite.
    """
    values = _centred(maps)
    values = values / values.abs().mean((-2, -1), keepdim=True).clamp(min=1e-6)
    steps = values.diff(dim=-2).abs().sum((-3, -2, -1)) + values.diff(dim=-1).abs().sum((-3, -2, -1))
    return steps / values.shape[-3:].numel()


def roughness(field: Tensor, region: Tensor) -> float:
    """Mean squared step to the next place on a grid, relative to the field's mean square: 0 if constant, 2 for noise.

    Parameters
    ----------
    field : Tensor
        (c, h, w), c components at every place.
    region : Tensor
        (h, w) bool: steps count between places that are both inside, the field's size only inside.
    """
    across, down = region[:, 1:] & region[:, :-1], region[1:] & region[:-1]
    steps = (field.diff(dim=2).square().sum(0) * across).sum() + (field.diff(dim=1).square().sum(0) * down).sum()
    size = (field.square().sum(0) * region).sum()
    return (steps / (across.sum() + down.sum()) / size * region.sum()).item()


def checkerboard_power(maps: Tensor) -> Tensor:
    """Power of the patterns of period two relative to that of any pattern, (...) float64: 1 in white noise's mean.

    The patterns are (-1)^x, (-1)^y and (-1)^(x + y); their mean power is divided by that of all Fourier components but
    the constant one, per channel, and averaged over channels. 0 without them, (h * w - 1) / 3 if there is nothing
    else. Channels without variation are left out; not a number where there is no other.

    Parameters
    ----------
    maps : Tensor
        (..., c, h, w), at least 2 x 2; of an odd height or width the last row or column is cut off.

    Raises
    ------
    ValueError
        For fewer axes, less than 2 x 2, and values that are not finite.
    """
    if maps.ndim < 3 or min(maps.shape[-2:]) < 2:
        raise ValueError(f"period two takes maps (..., c, h, w) of 2 x 2 pixels at least, not {tuple(maps.shape)}")
    height, width = (side // 2 * 2 for side in maps.shape[-2:])
    maps = maps[..., :height, :width]
    varies = maps.amax((-2, -1)) > maps.amin((-2, -1))
    power = torch.fft.fft2(_centred(maps)).abs().square()
    y, x = height // 2, width // 2
    of_two = (power[..., 0, x] + power[..., y, 0] + power[..., y, x]) / 3
    relative = of_two * (height * width - 1) / power.sum((-2, -1))
    return torch.where(varies, relative, 0).sum(-1) / varies.sum(-1)


def box_blur(maps: Tensor) -> Tensor:
    """Maps (n, c, h, w) under the mean of the four windows of 2 x 2 pixels that hold a pixel, so that nothing moves."""
    padded = F.pad(maps, (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(padded, 2, stride=1), 2, stride=1)


def blurred_to(maps: Tensor, goal: float) -> Tensor:
    """Maps (n, c, h, w) under the Gaussian blur that brings their mean total variation down to ``goal``.

    As they are where they have no more; sigma is found to 0.01 pixels and is at most 8.
    """

    def blurred(sigma: float) -> Tensor:
        smooth = ndimage.gaussian_filter(maps.numpy(force=True), (0, 0, sigma, sigma), mode="nearest")
        return torch.from_numpy(smooth).to(maps)

    def above(sigma: float) -> float:
        return total_variation(blurred(sigma)).mean().item() - goal

    if above(0.05) <= 0:
        return maps
    return blurred(optimize.brentq(above, 0.05, 8.0, xtol=0.01) if above(8.0) < 0 else 8.0)


def gini(maps: Tensor) -> Tensor:
    """Gini index of a map's values, (..., n) float64: 0 if all are equal, 1 - 1/pixels if one holds everything.

    Chalasani et al. 2020. Not a number for a map of zeros, where Quantus gives 0.

    Parameters
    ----------
    maps : Tensor
        (..., n, c, h, w), never negative: take absolute values before.

    Raises
    ------
    ValueError
        For negative values or such that are not finite.
    """
    values = maps.detach().double().flatten(-3)
    if not torch.isfinite(values).all() or (values < 0).any():
        raise ValueError("the Gini index is of finite values that are not negative; use channels.abs_sum(maps)")
    n = values.shape[-1]
    weights = 2 * torch.arange(1, n + 1, device=values.device) - n - 1
    return (values.sort(-1).values * weights).sum(-1) / (n * values.sum(-1))


def grain(pictures: Tensor) -> Tensor:
    """Mean absolute difference of neighbours in units of the picture's deviation, (...), of pictures (..., c, h, w).

    The mean of both directions. Unlike :func:`total_variation` it takes all channels together and is of pictures.
    """
    steps = [pictures.diff(dim=d).abs().mean((-1, -2, -3)) for d in (-1, -2)]
    return sum(steps) / 2 / pictures.std((-1, -2, -3))


def colourfulness(pictures: Tensor) -> Tensor:
    """How strong and varied colours are (Hasler and Suesstrunk 2003), (...), of pictures (..., 3, h, w).

    Of grey ones, (..., 1, h, w), their contrast: the standard deviation.
    """
    if pictures.shape[-3] == 1:
        return pictures.std((-1, -2, -3))
    red, green, blue = pictures.unbind(-3)
    opponents = torch.stack([red - green, (red + green) / 2 - blue])
    return opponents.var((-1, -2)).sum(0).sqrt() + 0.3 * opponents.mean((-1, -2)).norm(dim=0)
