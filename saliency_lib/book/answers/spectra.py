"""Answers to the exercises of notebook 12: what is right, and what are slips."""

import torch
from torch import Tensor

from saliency_lib import spectrum
from saliency_lib.book.exercises import exercise, function, measured, noise, number


@exercise("12-1")
def _(answer) -> str:
    peak = measured("12_spectrum", "peak", "trained")
    slips = {"that is its square, a ratio of powers": peak**2, "the other way round": 1 / peak}
    return number(answer, peak, slips, within=0.2 * peak)


@exercise("12-2")
def _(answer) -> str:
    def right(shared: Tensor, own: Tensor) -> Tensor:
        shared, own = shared.clamp(min=0), own.clamp(min=0)
        return shared / (shared + own) if shared > 0 else shared

    cases = [(torch.tensor(a), torch.tensor(b)) for a, b in ((2.0, 6.0), (-0.1, 1.0), (1.0, -0.2))]
    slips = {
        "that is the ratio of signal and noise; the gain is at most one": lambda shared, own: shared / own,
        "by chance a power can be below zero; then it counts as zero": lambda shared, own: shared / (shared + own),
        "that is the share of noise": lambda shared, own: own / (shared + own),
    }
    return function(answer, right, cases, slips)


@exercise("12-3")
def _(answer) -> str:
    def by_ring(values: Tensor, mean: bool = True) -> Tensor:
        where = spectrum.rings(*values.shape).flatten()
        total = torch.bincount(where, values.flatten())
        return total / torch.bincount(where) if mean else total

    def squares(picture: Tensor) -> Tensor:
        return torch.fft.fft2(picture.double(), norm="ortho").abs().square()

    slips = {
        "that is the sum over a ring; take the mean": lambda picture: by_ring(squares(picture), mean=False),
        "take squares": lambda picture: by_ring(squares(picture).sqrt()),
        "white noise should have its variance in every ring: divide by the number of pixels": lambda picture: (
            by_ring(squares(picture)) * picture.numel()
        ),
    }
    return function(answer, lambda picture: by_ring(squares(picture)), [(noise(12, 10),)], slips)
