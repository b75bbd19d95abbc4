"""Real data that ships inside the project's own dependencies: no download.

``digits``: scikit-learn's scans of handwritten digits, 8x8 grey. ``photodigits``: each scan enlarged, in a random
colour and place on a random crop of one of scikit-image's photographs, with the mask of its pixels; in the spirit of
the CMNIST of Bykov et al. 2022, so that localisation has a ground truth. ``cdigits``: the same as plain as CMNIST is,
all digits white, of one size and in the middle, which small and large networks learn from few images.
"""

import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

CLASSES = tuple("0123456789")
TRAIN_SCANS = 1437  # of 1,797; the others are for validation, so that no validation digit was trained on
PHOTOS = (
    "astronaut",
    "chelsea",
    "coffee",
    "rocket",
    "hubble_deep_field",
    "immunohistochemistry",
    "brick",
    "grass",
    "gravel",
    "camera",
)
PLAIN = 0.875  # side of a digit in cdigits, of the picture's: 28 of 32 pixels, as in CMNIST
CONTRAST = 0.3  # least difference in luma between a digit's colour and the mean of its background, of 1
LUMA = torch.tensor([0.299, 0.587, 0.114])


def scans(split: str) -> tuple[Tensor, Tensor]:
    """Ink of the digits, (n, 1, 8, 8) float32 in [0, 1], and their labels, (n,) int64, split by scan."""
    bunch = load_digits()
    order = np.random.default_rng(1797).permutation(len(bunch.target))
    chosen = order[:TRAIN_SCANS] if split == "train" else order[TRAIN_SCANS:]
    ink = torch.from_numpy(bunch.images[chosen]).float().unsqueeze(1) / 16
    return ink, torch.from_numpy(bunch.target[chosen]).long()


def digits(split: str, size: int = 8) -> dict[str, Tensor]:
    """The scans as they are, enlarged bilinearly where ``size`` is not 8."""
    ink, labels = scans(split)
    if size != 8:
        ink = F.interpolate(ink, size=(size, size), mode="bilinear", antialias=True)
    return {"images": (ink * 255).round().to(torch.uint8), "labels": labels}


def _photos(side: int) -> list[Tensor]:
    """Each photograph as (3, h, w) float32 in [0, 1], its shorter side ``side`` pixels."""
    out = []
    for name in PHOTOS:
        photo = torch.from_numpy(getattr(skimage.data, name)()).float() / 255
        photo = photo.permute(2, 0, 1) if photo.ndim == 3 else photo.expand(3, -1, -1)
        scale = side / min(photo.shape[1:])
        shape = [round(length * scale) for length in photo.shape[1:]]
        out.append(F.interpolate(photo[None], size=shape, mode="bilinear", antialias=True)[0].clamp(0, 1))
    return out


def _placed(pictures: Tensor, zoom: Tensor, centre: Tensor, size: int) -> Tensor:
    """Sample ``pictures`` (n, c, h, w) on a size x size grid: input = zoom * output + centre, both (n, 2) in x, y."""
    theta = torch.zeros(len(zoom), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = zoom[:, 0], zoom[:, 1]
    theta[:, :, 2] = centre
    grid = F.affine_grid(theta, [len(zoom), pictures.shape[1], size, size], align_corners=False)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


class _Draws:
    """Uniform numbers in [0, 1), one stream per quantity, so that the first k images are the same for every n."""

    def __init__(self, seed: int, split: str, n: int):
        self.key, self.n = [seed, ["train", "val"].index(split)], n

    def __call__(self, stream: int, *shape: int) -> Tensor:
        return torch.from_numpy(np.random.default_rng([*self.key, stream]).random((self.n, *shape), dtype=np.float32))


def _backgrounds(draw: _Draws, size: int) -> Tensor:
    """Crops, one to one and a half times as wide as the picture, of photographs whose shorter side is five pictures
    long: (n, 3, size, size)."""
    background = torch.empty(draw.n, 3, size, size)
    which = (draw(3) * len(PHOTOS)).long().clamp(max=len(PHOTOS) - 1)
    crop, place = size * (1 + 0.5 * draw(4, 1)), 2 * draw(5, 2) - 1
    for k, photo in enumerate(_photos(5 * size)):
        rows = (which == k).nonzero().squeeze(1)
        if len(rows):
            zoom = crop[rows] / torch.tensor([photo.shape[2], photo.shape[1]])
            background[rows] = _placed(photo.expand(len(rows), -1, -1, -1), zoom, place[rows] * (1 - zoom), size)
    return background


def _composed(draw: _Draws, split: str, size: int, part: Tensor, offset: Tensor, paint) -> dict[str, Tensor]:
    """Digits of side ``part`` (n, 1) of the picture's, ``offset`` (n, 2) from its middle, in the colours that
    ``paint(backgrounds)`` gives."""
    ink, labels = scans(split)
    scan = (draw(0) * len(ink)).long().clamp(max=len(ink) - 1)
    alpha = (1.5 * _placed(ink[scan], 1 / part.expand(-1, 2), -offset / part, size)).clamp(0, 1)
    background = _backgrounds(draw, size)
    images = alpha * paint(background)[:, :, None, None] + (1 - alpha) * background
    return {"images": (images * 255).round().to(torch.uint8), "labels": labels[scan], "masks": alpha[:, 0] > 0.5}


def photodigits(split: str, n: int, size: int = 32) -> dict[str, Tensor]:
    """``n`` composed images of ``size`` pixels; a digit's side is 55 to 90 % of the picture's."""
    draw = _Draws(20221, split, n)
    part = 0.55 + 0.35 * draw(1, 1)

    def paint(background: Tensor) -> Tensor:
        colour = draw(6, 3)
        luma, behind = colour @ LUMA, torch.einsum("nchw,c->n", background, LUMA) / size**2
        away = torch.where(behind > 0.5, -1.0, 1.0)  # towards the side that has room
        wanted = torch.where((luma - behind).abs() < CONTRAST, behind + away * CONTRAST, luma)
        return (colour + (wanted - luma)[:, None]).clamp(0, 1)

    return _composed(draw, split, size, part, (2 * draw(2, 2) - 1) * (1 - part), paint)


def cdigits(split: str, n: int, size: int = 16) -> dict[str, Tensor]:
    """``n`` composed images of ``size`` pixels, every digit white and in the middle, 7/8 as wide as the picture."""
    plain, middle = torch.full((n, 1), PLAIN), torch.zeros(n, 2)
    return _composed(_Draws(20222, split, n), split, size, plain, middle, lambda background: torch.ones(n, 3))
