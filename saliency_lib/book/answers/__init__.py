"""What is right in the exercises of the notebooks, registered when it is imported."""

from saliency_lib.book.answers import initialisation, weights_and_layers

__all__ = ["initialisation", "weights_and_layers"]
