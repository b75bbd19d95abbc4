"""What an image is compared with."""

import torch
from torch import Tensor

N_NOISE = 10


def references_or_noise(references: Tensor | None, images: Tensor, generator: torch.Generator) -> Tensor:
    """The references, (m, c, h, w) on the CPU, or noise with the data's mean and standard deviation.

    Raises
    ------
    ValueError
        If their shape is not that of the images.
    """
    if references is None:
        return torch.randn(N_NOISE, *images.shape[1:], generator=generator)
    if not len(references) or references.shape[1:] != images.shape[1:]:
        raise ValueError(
            f"references of shape {tuple(references.shape)} do not go with images {tuple(images.shape)}; "
            "give at least one, normalised like the images"
        )
    return references.detach().cpu()
