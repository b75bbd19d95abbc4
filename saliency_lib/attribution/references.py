"""What an image is compared with."""

import torch
from torch import Tensor

N_NOISE = 10


def _checked(name: str, references: Tensor, images: Tensor) -> Tensor:
    if not isinstance(references, Tensor) or not len(references) or references.shape[1:] != images.shape[1:]:
        shape = tuple(references.shape) if isinstance(references, Tensor) else type(references).__name__
        raise ValueError(
            f"{name} of shape {shape} do not go with images {tuple(images.shape)}; give them normalised like the images"
        )
    if not torch.isfinite(references).all():
        raise ValueError(f"{name} hold values that are not finite")
    return references.detach().to(images)


def references_or_noise(references: Tensor | None, images: Tensor, generator: torch.Generator) -> Tensor:
    """The references, (m, c, h, w) like the images, or noise with the data's mean and standard deviation.

    Raises
    ------
    ValueError
        If their shape is not that of the images, or a value is not finite.
    """
    if references is None:
        return torch.randn(N_NOISE, *images.shape[1:], generator=generator).to(images)
    return _checked("references", references, images)


def baseline_or_zero(baseline: Tensor | None, images: Tensor) -> Tensor:
    """The baseline, given as (c, h, w), as a batch of one like the images; zero, the data's mean colour, for None."""
    if baseline is None:
        return torch.zeros_like(images[:1])
    return _checked("baseline", baseline[None] if isinstance(baseline, Tensor) else baseline, images)
