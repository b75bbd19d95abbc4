"""The papers' data sets as torchvision keeps and downloads them, or as trees of images.

A download goes to a folder of its own and is moved into place when it is complete, so that a half-finished one never
counts as data. What lies there already is checked for its size before it is read.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.datasets import CIFAR10, MNIST, FashionMNIST, Imagenette, VisionDataset
from torchvision.datasets.utils import check_integrity

from saliency_lib.data.embedded import DIGITS
from saliency_lib.data.folders import decoded, listing, split_folder
from saliency_lib.data.images import DataError
from saliency_lib.data.registry import READ, DataSet, load

CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGENETTE = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
IMAGENETTE_FILES = {"train": 9469, "val": 3925}
IDX_BYTES = {
    "train-images-idx3-ubyte": 16 + 60000 * 784,
    "train-labels-idx1-ubyte": 8 + 60000,
    "t10k-images-idx3-ubyte": 16 + 10000 * 784,
    "t10k-labels-idx1-ubyte": 8 + 10000,
}


def _idx_flaw(folder: Path) -> str | None:
    for file, size in IDX_BYTES.items():
        path = folder / "raw" / file
        if (found := path.stat().st_size if path.exists() else 0) != size:
            return f"{path} has {found:,} bytes in place of {size:,}"
    return None


def _cifar_flaw(folder: Path) -> str | None:
    for file, md5 in CIFAR10.train_list + CIFAR10.test_list:
        if not check_integrity(folder / file, md5):
            return f"{folder / file} is missing or corrupt (wrong checksum)"
    return None


def _imagenette_flaw(folder: Path) -> str | None:
    for split, files in IMAGENETTE_FILES.items():
        if (found := len(list((folder / split).glob("*/*.JPEG")))) != files:
            return f"{folder / split} has {found:,} images in place of {files:,}"
    return None


class Source(NamedTuple):
    """The folder that torchvision makes under the root, its class, and what tells a file of the folder that is missing
    or of the wrong size (None if all is whole). The class brings both splits in a download."""

    folder: str
    open: Callable[..., VisionDataset]
    flaw: Callable[[Path], str | None]


SOURCES = {
    "fashion_mnist": Source("FashionMNIST", FashionMNIST, _idx_flaw),
    "mnist": Source("MNIST", MNIST, _idx_flaw),
    "cifar10": Source("cifar-10-batches-py", CIFAR10, _cifar_flaw),
    "imagenette": Source("imagenette2-160", partial(Imagenette, size="160px"), _imagenette_flaw),
}


def _download(name: str, root: Path) -> None:
    """Fetch the data set with torchvision into a temporary folder; move it into ``root`` once it is whole."""
    source = SOURCES[name]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=root) as temporary:
            source.open(Path(temporary), download=True)
            if flaw := source.flaw(Path(temporary) / source.folder):
                raise OSError(f"it ended early: {flaw}")
            if not (root / source.folder).is_dir():  # or another process was first
                (Path(temporary) / source.folder).rename(root / source.folder)
    except Exception as error:  # torchvision raises many kinds: URLError, RuntimeError, OSError, EOFError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{name} is not under {root} and could not be downloaded ({reason}): put torchvision's "
            f"{source.folder} there, or images under {root / name}/{{train,val}}/<class>/"
        ) from error


def _whole(name: str, root: Path) -> Path:
    """Folder of a data set, downloaded if it is not there; DataError if it is not whole."""
    folder = root / SOURCES[name].folder
    if not folder.is_dir():
        _download(name, root)
    elif flaw := SOURCES[name].flaw(folder):
        raise DataError(f"{flaw}: remove {folder} and run again to download it, or copy a whole one there")
    return folder


def _arrays(name: str, split: str, root: Path) -> dict:
    """Images and labels of a data set that torchvision holds in memory."""
    folder = _whole(name, root)
    try:
        stored = SOURCES[name].open(root, train=split == "train", download=False)
    except (RuntimeError, OSError, ValueError, AssertionError) as error:
        raise DataError(f"{folder} cannot be read ({error}): remove it and run again") from error
    images, labels = torch.as_tensor(np.asarray(stored.data)), torch.as_tensor(stored.targets).long()
    if labels.min() < 0 or labels.max() > 9:
        raise DataError(
            f"{folder} has labels from {labels.min()} to {labels.max()} in place of 0 to 9: remove it and run again "
            "to download it"
        )
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return {"images": images, "labels": labels, "source": "torchvision's files"}


def _tree(base: Path, split: str, size: int, channels: int = 3) -> dict | None:
    """A data set in folders of images, with its classes; None where there is no such folder."""
    train, chosen = split_folder(base, "train"), split_folder(base, split)
    if chosen is None:
        return None
    classes, files = listing(chosen, listing(train)[0] if train else None)
    kinds = " and ".join(sorted({path.suffix.lower() for path, _ in files}))
    named = {"classes": [IMAGENETTE.get(name, name) for name in classes], "source": f"a tree of {kinds} files"}
    return decoded(files, size, channels) | named


@DataSet(CLOTHES, 28, (0.2860,), (0.3530,), ("train", "val", "test"))
def fashion_mnist(split: str, n: int | None, size: int, root: Path) -> dict:
    """Xiao et al. 2017; its 60,000 training images are cut into the 48,000 and 12,000 of Woerl et al. 4.2."""
    half = "val" if split == "test" else "train"
    found = _tree(root / "fashion_mnist", half, size, channels=1) or _arrays("fashion_mnist", half, root)
    if split == "test":
        return found
    order = np.random.default_rng(48000).permutation(len(found["labels"]))
    cut = len(order) * 4 // 5
    rows = torch.from_numpy(order[:cut] if split == "train" else order[cut:])
    return found | {key: found[key][rows] for key in ("images", "labels")}


@DataSet(DIGITS, 28, (0.1307,), (0.3081,))
def mnist(split: str, n: int | None, size: int, root: Path) -> dict:
    """LeCun et al. 1998."""
    return _tree(root / "mnist", split, size, channels=1) or _arrays("mnist", split, root)


@DataSet(THINGS, 32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
def cifar10(split: str, n: int | None, size: int, root: Path) -> dict:
    """Krizhevsky 2009."""
    return _tree(root / "cifar10", split, size) or _arrays("cifar10", split, root)


@DataSet(tuple(IMAGENETTE.values()), 128, (0.4608, 0.4559, 0.4321), (0.2756, 0.2732, 0.2963))
def imagenette(split: str, n: int | None, size: int, root: Path) -> dict:
    """Ten classes of ImageNet, fast.ai's version of 160 pixels."""
    found = _tree(root / "imagenette", split, size) or _tree(_whole("imagenette", root), split, size)
    if found is None:
        raise DataError(f"{_whole('imagenette', root)} has no folder for {split!r}; remove it to have it fetched again")
    return found


@DataSet(DIGITS, 32, (0.5419, 0.5355, 0.5037), (0.2711, 0.2696, 0.2896))
def cmnist(split: str, n: int | None, size: int, root: Path) -> dict:
    """MNIST digits, white, in the middle of CIFAR-10 pictures spread evenly over the digits (Bykov et al. 2022).

    Every digit class takes the same number of pictures of every CIFAR-10 class, as nearly as the counts allow.
    """
    before = dict(READ)  # of what is read here only the whole is told
    digits, things = load("mnist", split, root=root), load("cifar10", split, root=root)
    thing = torch.empty_like(digits.labels)
    for digit in range(10):
        rows = digits.labels == digit
        thing[rows] = (torch.arange(int(rows.sum())) + digit) % 10
    ink = F.pad(digits.images, (2, 2, 2, 2)).int()
    images = torch.empty(len(digits), 3, 32, 32, dtype=torch.uint8)
    for k in range(10):
        rows, pictures = (thing == k).nonzero().squeeze(1), (things.labels == k).nonzero().squeeze(1)
        behind = things.images[pictures[torch.arange(len(rows)) % len(pictures)]].int()
        images[rows] = ((255 * ink[rows] + (255 - ink[rows]) * behind) / 255).round().to(torch.uint8)
    source = "; ".join(f"{part}: {READ.pop(f'{part} {split}')['source']}" for part in ("mnist", "cifar10"))
    READ.update(before)
    return {"images": images, "labels": digits.labels, "masks": ink[:, 0] > 127, "source": source}
