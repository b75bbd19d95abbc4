"""Real data that ships inside the project's own dependencies: no download.

``digits``: scikit-learn's scans of handwritten digits, 8x8 grey. ``photodigits``: each scan enlarged, in a random
colour and place on a random crop of one of scikit-image's photographs, with the mask of its pixels; in the spirit of
the CMNIST of Bykov et al. 2022, so that localisation has a ground truth. ``cdigits``: the same as plain as CMNIST is,
all digits white, of one size and in the middle, which small and large networks learn from few images.
"""

from pathlib import Path

import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

from saliency_lib.data.registry import DataSet
from saliency_lib.runtime.store import kept

DIGITS = tuple("0123456789")
COMPOSED = {"train": 4000, "val": 1000}  # images where no number is asked for
TRAIN_SCANS = 1437  # of 1,797; the others are for validation, so that no validation digit was trained on
COLOURED = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "immunohistochemistry")
PHOTOS = (*COLOURED, "brick", "grass", "gravel", "camera")
SIDE = 0.875  # of a digit in cdigits, of the picture's: 28 of 32 pixels, as in CMNIST
SEEDS = {"photodigits": 20221, "cdigits": 20222}  # of what is composed
CONTRAST = 0.3  # least difference in luma between a digit's colour and the mean of its background, of 1
LUMA = torch.tensor([0.299, 0.587, 0.114])


def scans(split: str) -> tuple[Tensor, Tensor]:
    """Ink of the digits, (n, 1, 8, 8) float32 in [0, 1], and their labels, (n,) int64, split by scan."""
    bunch = load_digits()
    order = np.random.default_rng(1797).permutation(len(bunch.target))
    chosen = order[:TRAIN_SCANS] if split == "train" else order[TRAIN_SCANS:]
    ink = torch.from_numpy(bunch.images[chosen]).float().unsqueeze(1) / 16
    return ink, torch.from_numpy(bunch.target[chosen]).long()


@DataSet(DIGITS, 8, (0.3052,), (0.3759,))
def digits(split: str, n: int | None, size: int, root: Path) -> dict[str, Tensor]:
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


def _standing_out(colour: Tensor, behind: Tensor) -> Tensor:
    """Colours (n, 3), made lighter or darker where their luma is too near that of their backgrounds (n,)."""
    luma, away = colour @ LUMA, torch.where(behind > 0.5, -1.0, 1.0)  # towards the side that has room
    wanted = torch.where((luma - behind).abs() < CONTRAST, behind + away * CONTRAST, luma)
    return (colour + (wanted - luma)[:, None]).clamp(0, 1)


def _which(draw: _Draws, count: int) -> Tensor:
    """The scan of each composed image, (n,)."""
    return (draw(0) * count).long().clamp(max=count - 1)


def scan_of(name: str, split: str, n: int) -> Tensor:
    """Which scan is in each of the first ``n`` images of a composed set, (n,); of other sets each image is its own."""
    if name not in SEEDS:
        return torch.arange(n)
    return _which(_Draws(SEEDS[name], split, n), len(scans(split)[1]))


def _composed(split: str, n: int, size: int, seed: int, varied: bool) -> dict[str, Tensor]:
    """``n`` digits on photographs, of any colour, size and place, or all white, of one size and in the middle."""
    (ink, labels), draw = scans(split), _Draws(seed, split, n)
    scan = _which(draw, len(ink))
    side = 0.55 + 0.35 * draw(1, 1) if varied else torch.full((n, 1), SIDE)  # of the picture's
    offset = (2 * draw(2, 2) - 1) * (1 - side) if varied else torch.zeros(n, 2)  # from its middle
    alpha = (1.5 * _placed(ink[scan], 1 / side.expand(-1, 2), -offset / side, size)).clamp(0, 1)
    background = _backgrounds(draw, size)
    behind = torch.einsum("nchw,c->n", background, LUMA) / size**2
    colour = _standing_out(draw(6, 3), behind) if varied else torch.ones(n, 3)
    images = alpha * colour[:, :, None, None] + (1 - alpha) * background
    return {"images": (images * 255).round().to(torch.uint8), "labels": labels[scan], "masks": alpha[:, 0] > 0.5}


@DataSet(DIGITS, 32, (0.4855, 0.4382, 0.4152), (0.2520, 0.2299, 0.2434))
def photodigits(split: str, n: int | None, size: int, root: Path) -> dict[str, Tensor]:
    """As many composed images as are asked for; a digit's side is 55 to 90 % of the picture's."""
    return kept(_composed, split, n or COMPOSED[split], size, seed=SEEDS["photodigits"], varied=True)


@DataSet(DIGITS, 16, (0.6320, 0.5923, 0.5768), (0.2848, 0.2888, 0.2970))
def cdigits(split: str, n: int | None, size: int, root: Path) -> dict[str, Tensor]:
    """As many composed images as are asked for, every digit white and in the middle, 7/8 as wide as the picture."""
    return kept(_composed, split, n or COMPOSED[split], size, seed=SEEDS["cdigits"], varied=False)
