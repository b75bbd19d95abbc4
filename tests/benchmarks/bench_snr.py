"""SNR of an ensemble with its interval: beside the bare forward and backward passes that it must do."""

import torch
from bench_methods import timed
from timing import compare, report, sized

from saliency_lib import data, models, snr
from saliency_lib.runtime.seeds import seeded


def test_cost_of_measuring():
    val = data.load("photodigits", "val", n=sized(512, 8))
    x, y = val.inputs(), val.labels
    with seeded(0):
        nets = [models.build("resnet_small", 10).eval() for _ in range(4)]

    def bare():
        for net in nets:
            for i in range(0, len(x), 256):
                part = x[i : i + 256].clone().requires_grad_()
                torch.autograd.grad(net(part).gather(1, y[i : i + 256, None]).sum(), part)

    found = compare(lambda: timed(snr.measure, "input_gradient", nets, x, y), bare)
    report(f"SNR with its jackknife, 4 resnet_small, {len(x)} images", "the bare passes", found)
