"""Answers to the exercises of notebooks 06 to 09: what is right, and what are slips."""

import math

import torch
from scipy import stats
from torch import Tensor, nn

from saliency_lib import attribution, quality, similarity
from saliency_lib.book import plotting
from saliency_lib.book.exercises import exercise, function, measured, noise, number
from saliency_lib.runtime.seeds import seeded


@exercise("06-1")
def _(answer) -> str:
    if not callable(answer):
        return f"a function is asked for, not {type(answer).__name__}"
    with seeded(0):
        net = nn.Linear(200, 200).requires_grad_(False)
        net.weight.copy_(noise(200, 200) + 3)
        net.bias.fill_(1.0)
        before = net.weight.clone()
        try:
            shaken = answer(net, 0.2)
        except Exception as error:  # a student's function may raise anything
            return f"your function raises {type(error).__name__}: {error}"
    if not isinstance(shaken, nn.Linear):
        return f"your function gives {type(shaken).__name__}, and a network is asked for"
    if not torch.equal(net.weight, before):
        return "your function changes the network that it was given; copy it first"
    if (shaken.weight / before).std() < 1e-3:
        return "every single weight has a factor of its own"
    factor, less = shaken.weight / before, shaken.weight - before
    if abs(less.std().item() - 0.2) < 0.01:
        return "that adds the noise; the paper multiplies"
    if abs(factor.std().item() - 0.2) > 0.01:
        return "sigma is the deviation of the factor"
    if abs(factor.mean().item() - 1) > 0.01:
        return "the factor is one in the mean"
    return "" if shaken.bias.std() > 0.1 else "a bias is a weight too, with a factor of its own"


@exercise("06-2")
def _(answer) -> str:
    sigma = measured("06_sigma", "sigma")
    return number(answer, sigma, {"that is its square": sigma**2, "that is in percent": 100 * sigma}, within=sigma / 2)


@exercise("06-3")
def _(answer) -> str:
    both = [(noise(8, 8, seed=k), noise(8, 8, seed=k + 1) > 0.5) for k in (0, 2, 4)]

    def right(m: Tensor, mask: Tensor) -> Tensor:
        return quality.relevance_rank_accuracy(m[None, None], mask[None])[0]

    def weakest(m: Tensor, mask: Tensor) -> Tensor:
        return right(-m, mask)

    slips = {
        "those are the weakest pixels": weakest,
        "that is their number; divide by that of the object's pixels": lambda m, mask: right(m, mask) * mask.sum(),
        "take as many pixels as the mask has": lambda m, mask: (
            mask.flatten()[m.flatten().topk(10).indices].float().mean()
        ),
    }
    return function(answer, right, both, slips)


@exercise("07-1")
def _(answer) -> str:
    def right(a: Tensor, b: Tensor) -> Tensor:
        return similarity.spearman(a[None, None], b[None, None])[0]

    slips = {
        "that is Pearson's; take ranks first": lambda a, b: similarity.pearson(a[None, None], b[None, None])[0],
        "argsort gives places, not ranks; apply it twice": lambda a, b: similarity.pearson(
            *(m.flatten().argsort()[None, None, None].double() for m in (a, b))
        )[0],
        "that is without sign": lambda a, b: similarity.spearman(a[None, None], b[None, None], absolute=True)[0],
    }
    a = noise(6, 6).exp()
    return function(answer, right, [(a, a.square() + noise(6, 6, seed=1))], slips)


@exercise("07-2")
def _(answer) -> str:
    slips = {
        "that is what is left; the drop is against two trained networks": lambda trained, redrawn: redrawn.mean(),
        "the other way round": lambda trained, redrawn: (redrawn - trained).mean(),
        "that is a ratio": lambda trained, redrawn: redrawn.mean() / trained.mean(),
        "a map is not alike to itself in another network; compare with two trained ones": lambda trained, redrawn: (
            1 - redrawn.mean()
        ),
    }
    alike = torch.tensor([0.6, 0.5]), torch.tensor([0.1, 0.3])
    return function(answer, lambda trained, redrawn: (trained - redrawn).mean(), [alike], slips)


@exercise("07-3")
def _(answer) -> str:
    cnn = f"cnn, {plotting.RUNS[-1].parameters['dataset']}"
    kept = measured("07_rank_correlation", "rank correlation", cnn, "guided backprop", "half redrawn")
    return number(answer, kept, {}, within=0.1)


@exercise("08-1")
def _(answer) -> str:
    slips = {
        "every strided layer's pixel is two pixels of the one below": lambda n: n / 2,
        "that counts the last layer's shift alone": lambda n: 2 ** (n - 1) / 2,
        "each shift is half a pixel": lambda n: 2**n - 1,
        "a higher layer's pixel is as wide as two of the layer below, not half as wide": lambda n: 1 - 2.0**-n,
    }
    return function(answer, lambda n: (2**n - 1) / 2, [(1,), (2,), (3,), (4,)], slips)


@exercise("08-2")
def _(answer) -> str:
    def right(kernel: Tensor) -> Tensor:
        x = torch.ones(1, 1, 9, 9, requires_grad=True)
        g = torch.autograd.grad(nn.functional.conv2d(x, kernel[None, None], stride=2).sum(), x)[0][0, 0]
        return g[4:6, 4:6]

    slips = {
        "the first is of even rows and columns, where the corners meet": lambda k: right(k).flip(0, 1),
        "add up what meets at a pixel; that is its mean": lambda k: right(k) / torch.tensor([[4.0, 2], [2, 1]]),
        "that is without stride, where every pixel meets the whole kernel": lambda k: k.sum().expand(2, 2),
    }
    return function(answer, right, [(noise(3, 3),)], slips)


@exercise("08-3")
def _(answer) -> str:
    slips = {
        "the scale of a map must not matter; divide by its mean absolute value": lambda m: (
            (m - m.mean()).diff(dim=0).abs().sum() + (m - m.mean()).diff(dim=1).abs().sum()) / m.numel(),
        "centre the map first": lambda m: (m.diff(dim=0).abs().sum() + m.diff(dim=1).abs().sum()) / m.numel() / (
            m.abs().mean()),
    }  # fmt: skip
    return function(answer, lambda m: quality.total_variation(m[None]), [(noise(6, 6) + 1,), (9 * noise(5, 5),)], slips)


@exercise("09-1")
def _(answer) -> str:
    slips = {
        "that is for a normal distribution; three networks have Student's t": 1.96 / math.sqrt(3),
        "divide by the root of their number": stats.t.ppf(0.975, 2),
        "three networks have two degrees of freedom": stats.t.ppf(0.975, 3) / math.sqrt(3),
    }
    return number(answer, stats.t.ppf(0.975, 2) / math.sqrt(3), slips)


@exercise("09-2")
def _(answer) -> str:
    slips = {
        "that is where its values are; the network saw them shifted and scaled": 0.0,
        "the mean comes off before the division": -0.485,
        "the mean is in units of 1, not of 255": -0.485 / 0.229 / 255,
    }
    return number(answer, -0.485 / 0.229, slips)


@exercise("09-3")
def _(answer) -> str:
    with seeded(0):
        net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    x, y = noise(2, 3, 2, 2), torch.tensor([0, 2])

    def right(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return attribution.gradient_x_input(net, x, y)

    slips = {
        "that is the gradient alone": lambda net, x, y: attribution.input_gradient(net, x, y),
        "that is summed over channels": lambda net, x, y: right(net, x, y).sum(1),
    }
    return function(answer, right, [(net, x, y)], slips)
