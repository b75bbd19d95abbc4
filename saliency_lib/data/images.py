"""Images, labels and masks of one split, uint8 until a batch is normalised."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import torch
from torch import Tensor


class DataError(Exception):
    """A data set is missing, truncated or corrupt; the message names the file and the way to get it."""


@dataclass(frozen=True, eq=False)
class ImageData:
    """One split of a data set, in memory on one device.

    Attributes
    ----------
    images : Tensor
        (n, c, h, w) uint8.
    labels : Tensor
        (n,) int64.
    masks : Tensor or None
        (n, h, w) bool, True on the pixels of the object; None where the data set has no ground truth.
    classes : tuple of str
        Name of each class, indexed by label.
    mean, std : Tensor
        (c,) float32, of pixel values scaled to [0, 1] over the training split.
    name : str
        The name that it was loaded by.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor | None
    classes: tuple[str, ...]
    mean: Tensor
    std: Tensor
    name: str

    def __post_init__(self):
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise ValueError(
                f"{self.name} has labels from {self.labels.min()} to {self.labels.max()}, but {len(self.classes)} "
                f"classes, which count from 0 to {len(self.classes) - 1}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of one image."""
        _, c, h, w = self.images.shape
        return c, h, w

    def to(self, device: str | torch.device) -> "ImageData":
        """The same data on another device."""
        moved: dict[str, Any] = {name: x.to(device) for name, x in vars(self).items() if isinstance(x, Tensor)}
        return replace(self, **moved)

    def take(self, indices: int | slice | Sequence[int] | Tensor) -> "ImageData":
        """Some of the images: the first ``indices`` of them if it is an int, else those that it selects."""
        rows = slice(int(indices)) if isinstance(indices, Integral) else indices
        masks = None if self.masks is None else self.masks[rows]
        return replace(self, images=self.images[rows], labels=self.labels[rows], masks=masks)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (n, c, h, w) to float32 with zero mean and unit variance per channel of the data set."""
        scale = (1 / (255 * self.std)).view(1, -1, 1, 1)
        shift = (self.mean / self.std).view(1, -1, 1, 1)
        return images.float() * scale - shift

    def inputs(self, indices=slice(None)) -> Tensor:
        """Normalised network inputs, (n, c, h, w) float32."""
        return self.normalise(self.images[indices])

    def pictures(self, indices=slice(None)) -> Tensor:
        """For plotting: (n, h, w, 3) float32 in [0, 1] on the CPU, grey repeated to three channels."""
        images = self.images[indices].view(-1, *self.images.shape[1:]).float().cpu() / 255
        return images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
