"""Pictures that stand for nothing: zero, the data's mean colour, or what is given, checked against the images."""

import torch
from torch import Tensor


def checked(name: str, references: Tensor, images: Tensor) -> Tensor:
    """References, (m, c, h, w), as the images are; ValueError where they have another shape or are not finite."""
    if not isinstance(references, Tensor) or not len(references) or references.shape[1:] != images.shape[1:]:
        shape = tuple(references.shape) if isinstance(references, Tensor) else type(references).__name__
        raise ValueError(
            f"{name} of shape {shape} do not go with images {tuple(images.shape)}; give them normalised like the images"
        )
    if not torch.isfinite(references).all():
        raise ValueError(f"{name} hold values that are not finite")
    return references.detach().to(images)


def baseline_or_zero(baseline: Tensor | None, images: Tensor) -> Tensor:
    """The baseline, given as (c, h, w), as a batch of one like the images; zero, the data's mean colour, for None."""
    if baseline is None:
        return torch.zeros_like(images[:1])
    return checked("baseline", baseline[None] if isinstance(baseline, Tensor) else baseline, images)
