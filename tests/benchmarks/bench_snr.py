"""SNR of an ensemble with its interval: time divided by that of the bare forward and backward passes it must do."""

import statistics
import time

import torch

from saliency_lib import data, models, snr
from saliency_lib.runtime.seeds import seeded


def test_cost_of_measuring(capsys):
    val = data.load("photodigits", "val", n=512)
    x, y = val.inputs(), val.labels
    with seeded(0):
        nets = [models.build("resnet_small", 10).eval() for _ in range(4)]
    times = {"measured": [], "bare": []}
    for _ in range(6):
        started = time.perf_counter()
        snr.measure("input_gradient", nets, x, y)
        times["measured"].append(time.perf_counter() - started)
        started = time.perf_counter()
        for net in nets:
            for i in range(0, len(x), 256):
                part = x[i : i + 256].clone().requires_grad_()
                torch.autograd.grad(net(part).gather(1, y[i : i + 256, None]).sum(), part)
        times["bare"].append(time.perf_counter() - started)
    ratios = [a / b for a, b in zip(*times.values())][1:]
    with capsys.disabled():
        print(
            f"\nSNR with jackknife, 4 members, 512 images: {statistics.median(ratios):.2f} times the bare passes "
            f"[{min(ratios):.2f}, {max(ratios):.2f}]"
        )
