"""Networks by name: ``build(name, num_classes)``; every activation is a module of its own, used once."""

from saliency_lib.models.catalogue import NAMES, build

__all__ = ["NAMES", "build"]
