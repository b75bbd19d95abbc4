"""Time of a dream: one model against plain lucent, and what each further member adds; ratios in one run."""

import statistics
import time

import numpy as np
import pytest
import torch
from bench_methods import compare
from conftest import as_it_comes

from saliency_lib import models
from saliency_lib.dreams import dream, param, transform
from saliency_lib.runtime.seeds import seeded

MEAN, STD, SIZE = torch.tensor([0.5] * 3), torch.tensor([0.25] * 3), 64


def network(name, seed=0):
    with seeded(seed):
        return models.build(name, 10).eval()


def of_lucent(model, steps):
    """lucent's own, with the same settings; the hooks that it leaves are taken off, or the next call would pay."""
    from lucent.optvis import render

    changes = [*transform.standard_transforms, lambda x: (x - MEAN.view(-1, 1, 1)) / STD.view(-1, 1, 1)]
    with as_it_comes():
        torch.manual_seed(0)
        np.random.seed(0)
        render.render_vis(
            model, "fc:3", lambda: param.image(SIZE), transforms=changes, thresholds=(steps,), preprocess=False,
            progress=False, show_image=False, fixed_image_size=SIZE,
        )  # fmt: skip
    for module in model.modules():
        module._forward_hooks.clear()
    model.zero_grad()


@pytest.mark.parametrize("name,steps", [("resnet_small", 60), ("resnet18", 20)])
def test_step_against_lucent(name, steps, capsys):
    net = network(name)
    ratio = compare(lambda: dream([net], 3, SIZE, MEAN, STD, steps), lambda: of_lucent(net, steps))
    with capsys.disabled():
        print(f"\n{name:12} one model, {SIZE} px: {ratio} of lucent's time", end="")


@pytest.mark.parametrize("name,steps", [("resnet_small", 40), ("resnet18", 10)])
def test_further_members(name, steps, capsys):
    nets, times = [network(name, k) for k in range(8)], {2: [], 4: [], 8: []}
    for _ in range(8):
        for n, found in times.items():
            started = time.perf_counter()
            dream(nets[:n], 3, SIZE, MEAN, STD, steps)
            found.append(time.perf_counter() - started)
    t2, t4, t8 = (statistics.median(found[1:]) / steps * 1000 for found in times.values())
    with capsys.disabled():
        print(f"\n{name:12} a step with 2, 4 and 8 members takes {t2:.1f}, {t4:.1f} and {t8:.1f} ms: a further member "
              f"{(t4 - t2) / 2:.1f} ms from 2 to 4 and {(t8 - t4) / 4:.1f} ms from 4 to 8, "
              f"{(t8 - t4) / (t4 - t2) / 2:.2f} times", end="")  # fmt: skip
