"""Answers to the exercises of notebook 11: what is right, and what are slips."""

import torch
from torch import Tensor, nn

from saliency_lib import attribution, similarity
from saliency_lib.book import plotting
from saliency_lib.book.exercises import exercise, function, measured, noise, number
from saliency_lib.runtime.seeds import seeded


@exercise("11-1")
def _(answer) -> str:
    copies = f"{max(plotting.RUNS[-1].parameters['n_gradients'])} x NoiseGrad"
    shaken, second = (measured("11_surrogate", "nearer than one gradient", name) for name in (copies, "2 x retrained"))
    slips = {
        "that is what the copies add; the first training run counts too": shaken / second,
        "that is a gain in correlation; training runs are asked for": shaken,
    }
    return number(answer, 1 + shaken / second, slips, within=0.15)


@exercise("11-2")
def _(answer) -> str:
    def right(r: float, n: int) -> float:
        return r / (r**2 + (1 - r**2) / n) ** 0.5

    slips = {
        "no correlation is larger than one: the signal stays as it is, and noise falls": lambda r, n: r * n**0.5,
        "that is its square, a share of power; take the root": lambda r, n: right(r, n) ** 2,
        "shares of power are squares of correlations": lambda r, n: r / (r + (1 - r) / n),
        "that is one map": lambda r, n: r,
    }
    return function(answer, right, [(0.6, 4), (0.3, 16)], slips)


@exercise("11-3")
def _(answer) -> str:
    with seeded(0):
        nets = [nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)).eval() for _ in range(4)]
    x, y = noise(5, 3, 2, 2), torch.tensor([0, 2, 1, 1, 0])

    def split(nets: list, k: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of one network, and those of the others."""
        maps = torch.stack([attribution.input_gradient(net, x, y) for net in nets])
        return maps[k], maps[[j for j in range(len(nets)) if j != k]]

    def right(nets: list, k: int, x: Tensor, y: Tensor) -> Tensor:
        own, others = split(nets, k, x, y)
        return similarity.pearson(own, others.mean(0)).mean()

    def with_itself(nets: list, k: int, x: Tensor, y: Tensor) -> Tensor:
        own, others = split(nets, k, x, y)
        return similarity.pearson(own, torch.cat([own[None], others]).mean(0)).mean()

    def in_pairs(nets: list, k: int, x: Tensor, y: Tensor) -> Tensor:
        own, others = split(nets, k, x, y)
        return torch.stack([similarity.pearson(own, other) for other in others]).mean()

    slips = {
        "the network itself is among the others; its own noise counts as agreement": with_itself,
        "average the others' maps first; you average correlations": in_pairs,
        "give one number, the mean over images": lambda nets, k, x, y: similarity.pearson(
            split(nets, k, x, y)[0], split(nets, k, x, y)[1].mean(0)),
    }  # fmt: skip
    return function(answer, right, [(nets, 1, x, y)], slips)
