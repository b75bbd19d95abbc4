"""Memory of streaming statistics: flat in the number of members, where stacking the maps grows with it."""

import tracemalloc

import numpy as np
import pytest
import torch
from timing import Comparison, report, sized

from saliency_lib import snr

IMAGES, SHAPE = 64, (3, 32, 32)


class Tracked:
    """Maps of one member at a time, and the largest number of live map tensors' bytes seen."""

    def __init__(self, members):
        self.members, self.generator = members, torch.Generator().manual_seed(0)

    def __len__(self):
        return self.members

    def __getitem__(self, i):
        if i >= self.members:
            raise IndexError
        return torch.from_numpy(np.random.default_rng(i).standard_normal((IMAGES, *SHAPE), np.float32))


def peak(work):
    """Peak bytes that NumPy allocates, and of PyTorch's CPU tensors by its profiler, while ``work`` runs."""
    tracemalloc.start()
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        work()
    numpy_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    live = top = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            top = max(top, live)
    return numpy_peak + top


@pytest.mark.parametrize("members", [10, sized(1000, 20)])
def test_peak_memory(members):
    stacked = members * IMAGES * np.prod(SHAPE) * 4 / 2**20
    used = peak(lambda: snr.measure_maps(Tracked(members))) / 2**20
    report(
        f"peak memory of SNR, {members} members",
        "maps stacked",
        Comparison(used, stacked, *[used / stacked] * 3),
        "MiB",
    )
