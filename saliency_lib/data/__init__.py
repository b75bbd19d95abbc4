"""Data sets as tensors in memory: ``load(name, split)`` gives an :class:`ImageData`."""

from saliency_lib.data import embedded, folders, torchvision_sets
from saliency_lib.data.images import DataError, ImageData
from saliency_lib.data.registry import DATASETS, DataSet, load

__all__ = ["DATASETS", "DataError", "DataSet", "ImageData", "embedded", "folders", "load", "torchvision_sets"]
