"""Data sets as tensors in memory: ``load(name, split)`` gives an :class:`ImageData`."""

from saliency_lib.data.errors import DataError
from saliency_lib.data.images import ImageData
from saliency_lib.data.registry import DATASETS, load

__all__ = ["DATASETS", "DataError", "ImageData", "load"]
