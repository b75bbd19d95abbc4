"""Answers to the exercises of notebooks 01 to 05: what is right, and what are slips."""

import math

import torch
from torch import Tensor, nn

from saliency_lib import snr
from saliency_lib.book import plotting
from saliency_lib.book.exercises import exercise, function, measured, noise, number
from saliency_lib.runtime.seeds import seeded


@exercise("01-1")
def _(answer) -> str:
    one = measured("01_training_curves", "mean accuracy", "main")
    two = measured("01_agreement", "share of images on which two members disagree")
    members = plotting.RUNS[-1].parameters["main"]["n_members"]
    slips = {
        "that is how often one network is right": one,
        "that would be if mistakes were independent; but hard images are hard for all": one**members,
        "that is how often two of them agree": 1 - two,
    }
    return number(answer, measured("01_accuracy_spread", "all members right"), slips, within=0.05)


@exercise("01-2")
def _(answer) -> str:
    slips = {
        "that is the variance; take the root": lambda p, n: p * (1 - p) / n,
        "that is the deviation of a single answer; a mean over n images has less": lambda p, n: math.sqrt(p * (1 - p)),
    }
    return function(answer, lambda p, n: math.sqrt(p * (1 - p) / n), [(0.9, 1000), (0.5, 64)], slips)


@exercise("01-3")
def _(answer) -> str:
    chances, labels = noise(3, 40, 5).softmax(2), torch.arange(40) % 5
    votes = {"that counts votes of single networks; average their probabilities first": lambda p, y: (
        p.argmax(2).mode(0).values == y).float().mean(),
        "that is the mean accuracy of single networks": lambda p, y: (p.argmax(2) == y).float().mean()}  # fmt: skip
    return function(answer, lambda p, y: (p.mean(0).argmax(1) == y).float().mean(), [(chances, labels)], votes)


@exercise("02-1")
def _(answer) -> str:
    n = plotting.RUNS[-1].parameters["main"]["n_members"]
    slips = {
        "the mean of a few maps of noise is not zero": 0,
        "that would be its square, a ratio of powers": 1 / n,
        "the other way round": math.sqrt(n),
    }
    return number(answer, 1 / math.sqrt(n), slips)


@exercise("02-2")
def _(answer) -> str:
    slips = {
        "that is the plug-in value; subtract what noise adds": lambda s, n: s,
        "powers are what adds up; subtract squares": lambda s, n: max(s - n**-0.5, 0),
        "where less is left than noise alone would give, nothing is left: no root of a negative number": lambda s, n: (
            abs(s * s - 1 / n) ** 0.5
        ),
    }
    return function(answer, lambda s, n: max(s * s - 1 / n, 0) ** 0.5, [(0.8, 16), (1.5, 4), (0.1, 16)], slips)


@exercise("02-3")
def _(answer) -> str:
    slips = {
        "the SNR of a mean grows with the root of their number": lambda s, goal: math.ceil(goal / s),
        "a number of networks is whole": lambda s, goal: (goal / s) ** 2,
        "those are too few by one": lambda s, goal: math.floor((goal / s) ** 2),
    }
    return function(answer, lambda s, goal: math.ceil((goal / s) ** 2), [(0.8, 3.0), (0.3, 1.0)], slips)


@exercise("03-1")
def _(answer) -> str:
    def right(maps: Tensor) -> Tensor:
        return snr.snr(snr.measure_maps(maps).value)

    def biased(maps: Tensor) -> Tensor:
        return maps.mean(0).flatten(1).norm(dim=1) / maps.std(0, correction=0).flatten(1).norm(dim=1)

    def by_pixel(maps: Tensor) -> Tensor:
        return (maps.mean(0).abs() / maps.std(0)).flatten(1).mean(1)

    slips = {
        "the spread of a sample divides by n - 1": biased,
        "that is a mean of ratios; Eq. 5 is a ratio of norms": by_pixel,
        "that is the square": lambda maps: right(maps).square(),
    }
    return function(answer, right, [(noise(5, 3, 2, 4, 4) + 1,)], slips)


@exercise("03-2")
def _(answer) -> str:
    slips = {
        "that is the level itself; ask for its share of the power": lambda m: m.mean(),
        "the mean of the squares is the map's power; the square of the mean is the level's, and a share is asked for": (
            lambda m: m.mean() ** 2
        ),
        "that is the whole power": lambda m: m.square().mean(),
        "that is what is not level": lambda m: m.var(correction=0) / m.square().mean(),
    }
    return function(answer, lambda m: m.mean() ** 2 / m.square().mean(), [(noise(6, 6) + 1,)], slips)


@exercise("03-3")
def _(answer) -> str:
    slips = {
        "noise falls with the root of their number": lambda s, n: s * n,
        "that is the SNR of one map": lambda s, n: s,
        "it rises": lambda s, n: s / math.sqrt(n),
    }
    return function(answer, lambda s, n: s * math.sqrt(n), [(0.8, 30), (0.2, 4)], slips)


@exercise("04-1")
def _(answer) -> str:
    slips = {
        "that is the factor for twice the width; an exponent is asked for": lambda a, b: b / a,
        "that is its logarithm to base e; the width doubles": lambda a, b: math.log(b / a),
        "the other way round": lambda a, b: math.log2(a / b),
    }
    return function(answer, lambda a, b: math.log2(b / a), [(0.5, 0.7), (0.4, 1.0)], slips)


@exercise("04-2")
def _(answer) -> str:
    slips = {
        "signal grows with their number, and noise with the root of it": lambda s, w: s * w,
        "that is the SNR of one channel": lambda s, w: s,
    }
    return function(answer, lambda s, w: s * math.sqrt(w), [(0.3, 16), (1.0, 4)], slips)


@exercise("04-3")
def _(answer) -> str:
    def right(weights: Tensor, kernels: Tensor) -> Tensor:
        parts = [
            nn.functional.conv_transpose2d(w[None, None], k[None, None], padding=1) for w, k in zip(weights, kernels)
        ]
        return torch.cat(parts).sum((0, 1))

    slips = {
        "that correlates; the way back of a convolution is its transpose": lambda weights, kernels: (
            nn.functional.conv2d(weights[None], kernels[None], padding=1)[0, 0]
        ),
        "that is a mean; channels add up": lambda weights, kernels: right(weights, kernels) / len(weights),
    }
    return function(answer, right, [(noise(4, 6, 6), noise(4, 3, 3, seed=1))], slips)


@exercise("05-1")
def _(answer) -> str:
    own, unseen = (measured("05_logits", "logit", "one network", who) for who in ("own", "unseen"))
    slips = {"that is a logit; a share is asked for": unseen, "the other way round": own / unseen}
    return number(answer, unseen / own, slips, within=0.15)


@exercise("05-2")
def _(answer) -> str:
    with seeded(0):
        nets, x = [nn.Linear(4, 3).requires_grad_(False) for _ in range(3)], noise(2, 4)
    for k, net in enumerate(nets):
        net.weight.copy_(noise(3, 4, seed=k))
    slips = {
        "that is a sum; its size grows with the number of networks": lambda nets, x, y: sum(n(x)[:, y] for n in nets),
        "those are probabilities; the paper's dream is of a logit": lambda nets, x, y: torch.stack(
            [n(x).softmax(1)[:, y] for n in nets]).mean(0),
        "that is the first network alone": lambda nets, x, y: nets[0](x)[:, y],
    }  # fmt: skip
    return function(answer, lambda nets, x, y: torch.stack([n(x)[:, y] for n in nets]).mean(0), [(nets, x, 1)], slips)


@exercise("05-3")
def _(answer) -> str:
    def right(picture: Tensor) -> Tensor:
        return picture.diff(dim=-1).abs().mean() + picture.diff(dim=-2).abs().mean()

    slips = {
        "signs cancel; take absolute values": lambda p: p.diff(dim=-1).mean() + p.diff(dim=-2).mean(),
        "one direction is missing": lambda p: p.diff(dim=-1).abs().mean(),
    }
    return function(answer, right, [(noise(3, 8, 8),)], slips)
