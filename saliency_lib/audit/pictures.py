"""Pictures in a folder as a network's inputs, and the classes that are explained."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from saliency_lib.audit.networks import ONE_OUTPUT, sides
from saliency_lib.audit.problems import Problems
from saliency_lib.data import DataError
from saliency_lib.data.folders import SUFFIXES, decode, images_in, see_through, split_folder, visible
from saliency_lib.inference import logits

IMAGENET = {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.449,), (0.226,))}
LARGEST = 512  # pixels, unless a size is asked for
PREDICTED, FOLDERS = "predicted", "folders"
Constants = Sequence[float] | float | None


@dataclass(frozen=True)
class Pictures:
    """Pictures as they are and as a network takes them."""

    shown: Tensor  # (n, h, w, c) in [0, 1]
    inputs: Tensor  # (n, c, h, w) float32, normalised
    labels: Tensor | None  # (n,) int64, the number of the picture's folder; None for a folder without folders
    folders: tuple[str, ...]  # their names, in alphabetical order

    def folders_are_classes(self, outputs: int) -> bool:
        """Whether the folders can be the classes of a network with so many outputs."""
        return self.labels is not None and len(self.folders) == outputs > 1


def read(
    folder: str | Path,
    n: int | None,
    size: int | Sequence[int] | None,
    problems: Problems,
    *,
    channels: int = 3,
    mean: Constants = None,
    std: Constants = None,
    seed: int = 0,
) -> Pictures:
    """``n`` pictures (None: all) drawn from a folder, or from one folder per class; unreadable ones become problems.

    Pictures are made just as large as ``size``, a side or height and width in pixels, and the middle is cut out; by
    default (None) it is the shorter side of the first picture by name, but ``LARGEST`` at most. ``channels`` is 1 for
    grey pictures, ``mean`` and ``std`` are as for :func:`normalised`. Of a folder with splits those for validation are
    taken. ValueError for a folder without a readable picture.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of pictures")
    if (split := split_folder(folder, "val")) and split_folder(folder, "train"):
        problems.remarks.append(f"Of {folder.name}, the pictures in {split.name} are taken.")
        folder = split
    classes, files = _listed(folder, problems)
    size = _size(size, [path for path, _ in files])
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed)).tolist()
    pixels, labels, transparent, enlarged = [], [], 0, 0
    for path, label in (files[i] for i in order):
        if len(pixels) == n:
            break
        try:
            pixels.append(decode(path, size, channels))
            labels.append(label)
            with Image.open(path) as image:
                transparent += see_through(image)
                enlarged += 1.5 * min(image.size) < min(pixels[-1].shape[1:])
        except (DataError, OSError, Image.DecompressionBombError) as error:
            problems.append(f"a picture is left out: {error}".replace(f"{folder}{os.sep}", ""))
    if not pixels:
        kinds = ", ".join(sorted(SUFFIXES))
        raise ValueError("; ".join([f"{folder} holds no picture that can be read ({kinds})", *problems]))
    if enlarged:
        side = " x ".join(map(str, pixels[0].shape[1:]))
        problems.remarks.append(f"{enlarged} pictures are enlarged to {side} pixels, by half and more.")
    if transparent:
        problems.remarks.append(
            f"{transparent} pictures may have transparent pixels; these show ImageNet's mean colour."
        )
    values = torch.stack([part.float() for part in pixels]) / 255
    inputs = normalised(values, mean, std)
    return Pictures(values.permute(0, 2, 3, 1), inputs, torch.tensor(labels) if classes else None, classes)


def _listed(folder: Path, problems: Problems) -> tuple[tuple[str, ...], list[tuple[Path, int]]]:
    """Folders that are classes, and files with the number of theirs."""
    classes = tuple(path.name for path in visible(folder) if path.is_dir())
    files = [(path, k) for k, name in enumerate(classes) for path in images_in(folder / name)]
    loose = images_in(folder)
    if not files:
        classes, files = (), [(path, 0) for path in loose]
    elif loose:
        problems.append(f"{len(loose)} pictures beside the folders are of no class and left out, as {loose[0].name}")
    if empty := [name for k, name in enumerate(classes) if k not in {label for _, label in files}]:
        problems.append(f"folders without pictures, which count as classes all the same: {', '.join(empty)}")
    if classes and all(map(str.isdecimal, classes)) and list(classes) != sorted(classes, key=int):
        problems.append(
            f"folders named by number are classes in alphabetical order, {', '.join(classes[:3])} and so on, as for "
            "torchvision; if yours are in numerical order, give all names as many digits"
        )
    return classes, files


def _size(size: int | Sequence[int] | None, files: Sequence[Path]) -> int | Sequence[int]:
    """The size that is asked for, or the shorter side of the first picture that can be read, ``LARGEST`` at most."""
    sides = [1] if size is None else np.ravel(size).tolist()
    if not 1 <= len(sides) <= 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"size is a side, or height and width, in whole pixels, not {size}")
    if size is not None:
        return sides[0] if len(sides) == 1 else sides
    for path in files:
        with suppress(DataError, OSError, Image.DecompressionBombError):
            decode(path, 1, 3)
            with Image.open(path) as image:
                return min(*image.size, LARGEST)
    return LARGEST


def normalised(values: Tensor, mean: Constants, std: Constants) -> Tensor:
    """Values (n, c, h, w) in [0, 1] less ``mean``, over ``std``, of each channel or of all; default: ImageNet's.
    ValueError for another number of them."""
    mean, std = constants(values.shape[1], mean, std)
    return (values - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)


def constants(channels: int, mean: Constants, std: Constants) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation of each channel, ImageNet's for None; ValueError for what pixels in [0, 1] cannot have."""
    if (mean is None) != (std is None):
        raise ValueError("give both mean and std, or neither for ImageNet's")
    if mean is None or std is None:
        mean, std = IMAGENET[channels]
    mean, std = _each(mean, channels), _each(std, channels)
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        fit = f"{channels} channels need as many means and positive deviations"
        raise ValueError(f"pictures of {fit}, not {mean}, {std}")
    if max(*mean, *std) > 1:
        raise ValueError(f"mean and std are of pixels from 0 to 1; divide {mean} and {std} by 255")
    return mean, std


def _each(value: Sequence[float] | float, channels: int) -> Sequence[float]:
    """A number for each channel, of one for all or of several."""
    return [value] * channels if isinstance(value, (int, float)) else value


def targets(networks: Iterable[nn.Module], pictures: Pictures, which: str, problems: Problems) -> Tensor:
    """The classes explained, (n,) int64: what the networks jointly predict (``"predicted"``), or the pictures' folders
    (``"folders"``) where these can be classes. Of networks with one output the side is predicted, 0 below zero and 1
    above, as :func:`saliency_lib.audit.networks.two_sided` numbers them."""
    if which not in (PREDICTED, FOLDERS):
        raise ValueError(f"targets are {PREDICTED!r} or {FOLDERS!r}, not {which!r}")
    outputs = [logits(net, pictures.inputs) for net in networks]
    if outputs[0].shape[1] == 1:
        problems.remarks.append(ONE_OUTPUT)
        outputs = [sides(z) for z in outputs]
    chosen = sum((o.softmax(1) for o in outputs), start=torch.zeros_like(outputs[0])).argmax(1).cpu()
    if which == FOLDERS and pictures.labels is not None and pictures.folders_are_classes(outputs[0].shape[1]):
        chosen = pictures.labels
    elif which == FOLDERS:
        problems.append(
            f"the networks have {outputs[0].shape[1]} outputs, but there are {len(pictures.folders)} folders of "
            "pictures, which then cannot be classes by their order; the networks' predictions are explained"
        )
    if len(chosen.unique()) == 1:
        problems.append(
            f"all pictures have the one target {int(chosen[0])}, so that nothing can be said of other classes, nor "
            "whether maps depend on the class"
        )
    return chosen
