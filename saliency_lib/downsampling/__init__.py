"""Three ways to remove the checkerboard that strided convolutions print on gradients (Herdt et al. 2024).

A convolution of stride s multiplies a pixel by the weights of its place modulo s only, so that gradients differ between
places. ``smooth_backward`` averages the gradients of such layers over shifts, ``smooth_forward`` their inputs;
``BilinearSurrogate`` replaces the layers by trained ones without strides.
"""

from saliency_lib.downsampling.remedies import blocks, smooth_backward, smooth_forward, strided_convs
from saliency_lib.downsampling.segmenter import Segmenter
from saliency_lib.downsampling.surrogate import BilinearSurrogate

__all__ = [
    "BilinearSurrogate", "Segmenter", "blocks", "smooth_backward", "smooth_forward", "strided_convs",
]  # fmt: skip
