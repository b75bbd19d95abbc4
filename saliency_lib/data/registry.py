"""``load``: every data set by name, with its splits, sizes and constants."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from saliency_lib.data import embedded, folders, torchvision_sets
from saliency_lib.data.errors import DataError
from saliency_lib.data.images import ImageData
from saliency_lib.runtime.cache import cached
from saliency_lib.runtime.store import data_root

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


@dataclass(frozen=True)
class DataSet:
    """Facts of a data set: classes, native size, mean and standard deviation per channel of the training split."""

    classes: tuple[str, ...]
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    n: dict[str, int] | None = None  # images per split where they are composed on demand
    splits: tuple[str, ...] = ("train", "val")


DATASETS = {
    "digits": DataSet(embedded.CLASSES, 8, (0.3052,), (0.3759,)),
    "photodigits": DataSet(
        embedded.CLASSES, 32, (0.4855, 0.4382, 0.4152), (0.2520, 0.2299, 0.2434), {"train": 4000, "val": 1000}
    ),
    "cdigits": DataSet(
        embedded.CLASSES, 16, (0.6320, 0.5923, 0.5768), (0.2848, 0.2888, 0.2970), {"train": 4000, "val": 1000}
    ),
    "fashion_mnist": DataSet(CLOTHES, 28, (0.2860,), (0.3530,), splits=("train", "val", "test")),
    "mnist": DataSet(embedded.CLASSES, 28, (0.1307,), (0.3081,)),
    "cifar10": DataSet(THINGS, 32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "imagenette": DataSet(tuple(IMAGENETTE.values()), 128, (0.4608, 0.4559, 0.4321), (0.2756, 0.2732, 0.2963)),
    "cmnist": DataSet(embedded.CLASSES, 32, (0.5419, 0.5355, 0.5037), (0.2711, 0.2696, 0.2896)),
}
FOLDER_SIZE = 64  # pixels, of a user's own images where no size is asked for


def load(
    name: str, split: str, n: int | None = None, size: int | None = None, root: str | Path | None = None
) -> ImageData:
    """Load one split of a data set into memory.

    Parameters
    ----------
    name : str
        One of ``DATASETS``, or ``folder:/path`` for images of one's own: ``/path/{train,val}/<class>/*``, or
        ``/path/<class>/*``, of which every fifth image is then for validation.
    split : str
        ``"train"`` or ``"val"``; FashionMNIST has the 48,000/12,000 split of Woerl et al. 2023 and ``"test"`` besides.
    n : int, optional
        Only the first ``n`` images, a fair sample of the split. ``photodigits`` and ``cdigits`` compose as many as are
        asked for.
    size : int, optional
        Side in pixels to resize to; default: that of the data set.
    root : path, optional
        Folder of the data sets; default ``$SALIENCY_DATA``, else ``data/``. Any data set is also read from a tree
        ``<root>/<name>/{train,val or test}/<class>/*``.

    Raises
    ------
    ValueError
        For an unknown name or split, or more images than there are.
    DataError
        When files are missing, truncated or corrupt; the message names the file and the way to get it.
    """
    if name.startswith("folder:"):
        return _own_images(name, split, n, size)
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; one of {sorted(DATASETS)}, or folder:/path")
    facts = DATASETS[name]
    if split not in facts.splits:
        raise ValueError(f"{name} has no split {split!r}; one of {list(facts.splits)}")
    size = size or facts.size
    tensors, classes = _tensors(name, split, n, size, data_root(root))
    return _image_data(name, tensors, classes, n, size, torch.tensor(facts.mean), torch.tensor(facts.std))


def _tensors(name: str, split: str, n: int | None, size: int, root: Path) -> tuple[dict[str, Tensor], tuple]:
    facts = DATASETS[name]
    if name == "digits":
        return embedded.digits(split, size), facts.classes
    if name in ("photodigits", "cdigits"):
        n = n or facts.n[split]
        return cached(
            {"name": name, "split": split, "n": n, "size": size, "photos": embedded.PHOTOS},
            lambda: getattr(embedded, name)(split, n, size),
        ), facts.classes
    if name == "cmnist":
        return _cmnist(split, root), facts.classes
    folder = folders.split_folder(root / name, "train" if facts.splits[-1] == "test" and split == "val" else split)
    if folder is not None:
        train = folders.split_folder(root / name, "train")
        names, files = folders.listing(folder, train and folders.listing(train)[0])
        tensors = folders.read(name, files, size, len(facts.mean))
        classes = tuple(IMAGENETTE.get(c, c) for c in names)
    else:
        tensors, classes = (
            torchvision_sets.read(name, split != "test" if "test" in facts.splits else split == "train", root, size),
            facts.classes,
        )
    if name == "fashion_mnist" and split != "test":  # the 48,000/12,000 of Woerl et al. 4.2, cut from the 60,000
        order = np.random.default_rng(48000).permutation(len(tensors["labels"]))
        cut = len(order) * 4 // 5
        rows = torch.from_numpy(order[:cut] if split == "train" else order[cut:])
        tensors = {key: value[rows] for key, value in tensors.items()}
    return tensors, classes


def _cmnist(split: str, root: Path) -> dict[str, Tensor]:
    """MNIST digits, white, in the middle of CIFAR-10 pictures spread evenly over the digits (Bykov et al. 2022).

    Every digit class takes the same number of pictures of every CIFAR-10 class, as nearly as the counts allow.
    """
    mnist, cifar = load("mnist", split, root=root), load("cifar10", split, root=root)
    thing = torch.empty_like(mnist.labels)
    for digit in range(10):
        rows = mnist.labels == digit
        thing[rows] = (torch.arange(int(rows.sum())) + digit) % 10
    ink = F.pad(mnist.images, (2, 2, 2, 2)).short()
    images = torch.empty(len(mnist), 3, 32, 32, dtype=torch.uint8)
    for k in range(10):
        rows, pictures = (thing == k).nonzero().squeeze(1), (cifar.labels == k).nonzero().squeeze(1)
        behind = cifar.images[pictures[torch.arange(len(rows)) % len(pictures)]].int()
        images[rows] = ((255 * ink[rows].int() + (255 - ink[rows].int()) * behind) / 255).round().to(torch.uint8)
    return {"images": images, "labels": mnist.labels, "masks": ink[:, 0] > 127}


def _own_images(name: str, split: str, n: int | None, size: int | None) -> ImageData:
    base, size = Path(name.removeprefix("folder:")).expanduser(), size or FOLDER_SIZE
    if not base.is_dir():
        raise DataError(f"{base} is not a folder: give folder:/path with images in /path/<class>/")
    if split not in ("train", "val"):
        raise ValueError(f"{name} has no split {split!r}; one of ['train', 'val']")
    if folders.split_folder(base, "train") and folders.split_folder(base, "val"):
        classes, train = folders.listing(folders.split_folder(base, "train"))
        _, val = folders.listing(folders.split_folder(base, "val"), classes)
    else:
        classes, files = folders.listing(base)
        train, val = [f for i, f in enumerate(files) if i % 5], files[::5]
    pixels = folders.read(name, train, size, 3)
    scaled = pixels["images"].float().div(255).transpose(0, 1).flatten(1)
    mean, std = scaled.mean(1), scaled.std(1).clamp(min=1e-3)
    tensors = pixels if split == "train" else folders.read(name, val, size, 3)
    return _image_data(name, tensors, classes, n, size, mean, std)


def _image_data(name, tensors, classes, n, size, mean, std) -> ImageData:
    images, labels, masks = tensors["images"], tensors["labels"], tensors.get("masks")
    if n is not None and not 0 < n <= len(labels):
        raise ValueError(f"n={n} images of {name} were asked for; there are {len(labels):,} (None, or null, takes all)")
    images, labels, masks = images[:n], labels[:n], None if masks is None else masks[:n].bool()
    if images.shape[-1] != size:
        shape = {"size": (size, size), "mode": "bilinear", "antialias": True}
        images = F.interpolate(images.float(), **shape).round().clamp(0, 255).to(torch.uint8)
        masks = None if masks is None else F.interpolate(masks[:, None].float(), **shape)[:, 0] > 0.5
    return ImageData(images, labels, masks, tuple(classes), mean, std, name)
