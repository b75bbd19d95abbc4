"""``load``: every data set by name. A new one is a function that reads it, under a line of facts."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from saliency_lib.data.images import ImageData
from saliency_lib.runtime.store import data_root

Reader = Callable[[str, int | None, int, Path], dict[str, Any]]


DATASETS: dict[str, "DataSet"] = {}
READ: dict[str, dict[str, Any]] = {}  # by name and split: what this process has read, for the provenance of its figures


@dataclass
class DataSet:
    """Facts of a data set. Above a function that reads it, they let :func:`load` know it by the function's name.

    The function is ``read(split, n, size, root)``: it gives ``images`` (n, c, h, w) uint8, ``labels`` (n,) int64 and,
    where there is a ground truth, ``masks`` (n, h, w) bool, in a dict. That is at least the first ``n`` of the split,
    at ``size`` pixels or as they are stored, from the folder ``root``. What it says of ``classes``, ``mean`` and
    ``std`` replaces the facts; ``source`` says where the pixels came from, if not out of the dependencies.

    Attributes
    ----------
    size : int
        Side in pixels where none is asked for.
    mean, std : tuple
        Per channel, of values in [0, 1] over the training split.
    """

    classes: tuple[str, ...]
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    splits: tuple[str, ...] = ("train", "val")
    read: Reader = field(init=False)

    def __call__(self, read: Reader) -> Reader:
        DATASETS[read.__name__], self.read = self, read
        return read


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
        Folder of the data sets; default ``$SALIENCY_DATA``, else ``data/``. The papers' are also read from a tree
        ``<root>/<name>/{train,val or test}/<class>/*``.

    Raises
    ------
    ValueError
        For an unknown name or split, or more images than there are.
    DataError
        When files are missing, truncated or corrupt; the message names the file and the way to get it.
    """
    kind, _, place = name.partition(":")
    if kind not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; one of {sorted(DATASETS)}, where folder is written folder:/path")
    facts = DATASETS[kind]
    if split not in facts.splits:
        raise ValueError(f"{name} has no split {split!r}; one of {list(facts.splits)}")
    for what, count in {"n": n, "size": size}.items():
        if count is not None and count < 1:
            raise ValueError(f"{what}={count} should be one or more; None takes all images, or the data set's own size")
    size, root = size or facts.size, Path(place).expanduser() if place else data_root(root)
    found = vars(facts) | facts.read(split, n, size, root)
    images, labels, masks = found["images"], found["labels"], found.get("masks")
    if n is not None and n > len(labels):
        raise ValueError(f"n={n} images of {name} were asked for; there are {len(labels):,} (None, or null, takes all)")
    images, labels, masks = images[:n], labels[:n], None if masks is None else masks[:n]
    if images.shape[-2:] != (size, size):
        shape: dict[str, Any] = {"size": (size, size), "mode": "bilinear", "antialias": True}
        images = F.interpolate(images.float(), **shape).round().clamp(0, 255).to(torch.uint8)
        masks = None if masks is None else F.interpolate(masks[:, None].float(), **shape)[:, 0] > 0.5
    READ[f"{name} {split}"] = _facts(images, labels, found.get("source", "embedded"))
    mean, std = (torch.as_tensor(found[key]) for key in ("mean", "std"))
    return ImageData(images, labels, masks, tuple(found["classes"]), mean, std, name)


def _facts(images: Tensor, labels: Tensor, source: str) -> dict[str, Any]:
    """What tells one copy of a data set from another, as one that was compressed again."""
    digest = hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()[:16]
    return {"images": len(labels), "pixels": images.shape[-1], "source": source, "sha256": digest}
