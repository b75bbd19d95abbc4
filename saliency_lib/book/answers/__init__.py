"""What is right in the exercises of the notebooks, registered when it is imported."""

from saliency_lib.book.answers import edges, initialisation, spectra, stand_ins, weights_and_layers

__all__ = ["edges", "initialisation", "spectra", "stand_ins", "weights_and_layers"]
