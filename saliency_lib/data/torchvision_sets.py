"""The papers' data sets as torchvision keeps and downloads them.

A download goes to a folder of its own and is moved into place when it is complete, so that a half-finished one never
counts as data. What lies there already is checked for its size before it is read.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor

from saliency_lib.data import folders
from saliency_lib.data.errors import DataError

IDX_BYTES = {
    "train-images-idx3-ubyte": 16 + 60000 * 784,
    "train-labels-idx1-ubyte": 8 + 60000,
    "t10k-images-idx3-ubyte": 16 + 10000 * 784,
    "t10k-labels-idx1-ubyte": 8 + 10000,
}


@dataclass(frozen=True)
class TorchvisionSet:
    """How torchvision names a data set: its class, the folder it makes under the root, and its arguments."""

    cls: str
    folder: str
    arguments: dict

    def make(self, root: Path, train: bool, download: bool):
        arguments = {"split": "train" if train else "val", **self.arguments} if self.arguments else {"train": train}
        return getattr(torchvision.datasets, self.cls)(root, download=download, **arguments)  # brings both splits


SETS = {
    "fashion_mnist": TorchvisionSet("FashionMNIST", "FashionMNIST", {}),
    "mnist": TorchvisionSet("MNIST", "MNIST", {}),
    "cifar10": TorchvisionSet("CIFAR10", "cifar-10-batches-py", {}),
    "imagenette": TorchvisionSet("Imagenette", "imagenette2-160", {"size": "160px"}),
}
IMAGENETTE_FILES = {"train": 9469, "val": 3925}


def _flaw(name: str, root: Path) -> str | None:
    """What is missing or of the wrong size under ``root``, by file; None if the data set is whole."""
    base = root / SETS[name].folder
    if name in ("fashion_mnist", "mnist"):
        for file, size in IDX_BYTES.items():
            path = base / "raw" / file
            found = path.stat().st_size if path.exists() else 0
            if found != size:
                return f"{path} has {found:,} bytes in place of {size:,}"
    elif name == "cifar10":
        cls = torchvision.datasets.CIFAR10
        for file, md5 in cls.train_list + cls.test_list:
            if not torchvision.datasets.utils.check_integrity(base / file, md5):
                return f"{base / file} is missing or corrupt (wrong checksum)"
    else:
        for split, files in IMAGENETTE_FILES.items():
            found = len(list((base / split).glob("*/*.JPEG")))
            if found != files:
                return f"{base / split} has {found:,} images in place of {files:,}"
    return None


def _download(name: str, root: Path) -> None:
    """Fetch the data set with torchvision into a temporary folder; move it into ``root`` once it is whole."""
    source = SETS[name]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=root) as temporary:
            source.make(Path(temporary), train=True, download=True)
            if flaw := _flaw(name, Path(temporary)):
                raise OSError(f"it ended early: {flaw}")
            shutil.move(Path(temporary) / source.folder, root / source.folder)
    except Exception as error:  # torchvision raises many kinds: URLError, RuntimeError, OSError, EOFError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{name} is not under {root} and could not be downloaded ({reason}): put torchvision's "
            f"{source.folder} there, or images under {root / name}/{{train,val}}/<class>/"
        ) from error


def read(name: str, train: bool, root: Path, size: int) -> dict[str, Tensor]:
    """Images (n, c, h, w) uint8 at their stored size (Imagenette: at ``size``) and labels (n,) of a set."""
    if not (root / SETS[name].folder).is_dir():
        _download(name, root)
    elif flaw := _flaw(name, root):
        raise DataError(
            f"{flaw}: remove {root / SETS[name].folder} and run again to download it, or copy a whole one there"
        )
    if name == "imagenette":
        _, files = folders.listing(folders.split_folder(root / SETS[name].folder, "train" if train else "val"))
        return folders.read(name, files, size, 3)
    try:
        stored = SETS[name].make(root, train, download=False)
    except (RuntimeError, OSError, ValueError, AssertionError) as error:
        raise DataError(f"{root / SETS[name].folder} cannot be read ({error}): remove it and run again") from error
    images, labels = torch.as_tensor(np.asarray(stored.data)), torch.as_tensor(stored.targets).long()
    if labels.min() < 0 or labels.max() > 9:
        raise DataError(
            f"{root / SETS[name].folder} has labels from {labels.min()} to {labels.max()} in place of "
            "0 to 9: remove it and run again to download it"
        )
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return {"images": images, "labels": labels}
