"""Noise on a network's weights, inside a block."""

from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase

import torch
from torch import nn

MULTIPLICATIVE, ADDITIVE = "multiplicative", "additive"


def _chosen(model: nn.Module, pattern: str) -> list[nn.Parameter]:
    named = [(name, p) for name, p in model.named_parameters() if p.is_floating_point()]
    chosen = [p for name, p in named if fnmatchcase(name, pattern)]
    if not chosen:
        known = ", ".join(name for name, _ in named[:3]) or "none"
        raise ValueError(f"no parameter's name matches {pattern!r}; there are {len(named)}: {known} ...")
    return chosen


def check_noise(sigma: float, kind: str) -> None:
    """Raise ValueError for a negative ``sigma`` or an unknown ``kind`` of noise."""
    if not 0 <= sigma < float("inf"):
        raise ValueError(f"noise on weights needs a finite sigma >= 0, not {sigma}")
    if kind not in (MULTIPLICATIVE, ADDITIVE):
        raise ValueError(f"unknown kind of noise {kind!r}; one of {[ADDITIVE, MULTIPLICATIVE]}")


@contextmanager
def perturbed(
    model: nn.Module, sigma: float, generator: torch.Generator, *, kind: str = MULTIPLICATIVE, pattern: str = "*"
) -> Iterator[nn.Module]:
    """Shake the model's weights inside the block; restored bit for bit after it, also on an exception.

    Bykov et al. 2022, Eq. 2: every parameter times its own draw from N(1, sigma^2). Buffers, as batch normalisation's
    statistics, stay.

    Parameters
    ----------
    generator : torch.Generator
        Where the draws come from; one on the CPU gives the same draws for a model on any device.
    kind : str
        ``"multiplicative"``, or ``"additive"``: plus N(0, sigma^2), in units of the weights.
    pattern : str
        Names of the parameters to shake, with ``*`` for anything: ``"*weight"``, ``"layer4.*"``.

    Raises
    ------
    ValueError
        For a negative sigma, an unknown kind, or a pattern that no parameter has.
    """
    check_noise(sigma, kind)
    chosen = _chosen(model, pattern)
    kept = [p.detach().clone() for p in chosen]
    try:
        with torch.no_grad():
            for p, own in zip(chosen, kept):
                noise = torch.randn(p.shape, generator=generator, device=generator.device).to(p)
                if kind == MULTIPLICATIVE:
                    torch.addcmul(own, own, noise, value=sigma, out=p)
                else:
                    torch.add(own, noise, alpha=sigma, out=p)
        yield model
    finally:
        with torch.no_grad():
            for p, own in zip(chosen, kept):
                p.copy_(own)
