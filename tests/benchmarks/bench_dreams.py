"""Time of a dream: one model against plain lucent, and eight together against eight dreams of one."""

import numpy as np
import pytest
import torch
from bench_methods import timed
from conftest import as_it_comes
from timing import compare, report, sized

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
def test_step_against_lucent(name, steps):
    net, steps = network(name), sized(steps, 2)
    found = compare(lambda: timed(dream, [net], 3, SIZE, MEAN, STD, steps), lambda: of_lucent(net, steps))
    report(f"a dream of one {name}, {SIZE} px, {steps} steps", "lucent", found)


@pytest.mark.parametrize("name,steps", [("resnet_small", 40), ("resnet18", 10)])
def test_eight_members(name, steps):
    nets, steps = [network(name, k) for k in range(sized(8, 2))], sized(steps, 2)

    def one_by_one():
        for net in nets:
            dream([net], 3, SIZE, MEAN, STD, steps)

    found = compare(lambda: timed(dream, nets, 3, SIZE, MEAN, STD, steps), one_by_one)
    report(f"a dream of {len(nets)} {name}, {steps} steps", f"{len(nets)} dreams of one", found)
