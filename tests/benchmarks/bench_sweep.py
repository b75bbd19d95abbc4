"""The sweep: training many small networks our way against the usual way, in one run.

Usual: one network after the other, a torchvision data set, a DataLoader, all settings at their defaults. Ours: what
notebook 04 does (``training.fastest`` in each kind of process). Both train the same architectures: two layers, with and
without ReLU, no and max-pooling; seconds are those of a network.
"""

import struct
import time
from functools import partial

import pytest
from bench_training import usual as one_network
from timing import compare, report, sized
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from saliency_lib import data, models, training
from saliency_lib.runtime import parallel
from saliency_lib.runtime.seeds import seeded
from saliency_lib.training import Recipe

CELLS = [(pool, activation) for pool in ("none", "max") for activation in ("none", "relu")]
MEMBERS, EPOCHS, WIDTHS = 8, 2, sized((4, 16, 64), (4,))


def network(width, pool, activation, size, seed):
    with seeded(seed):
        return models.build(f"convnet-w{width}-d2-{pool}", 10, 1, activation=activation, size=size)


def usual(folder, width, size, cell):
    """One network after the other; returns how many."""
    pixels = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.3,), (0.4,))])
    for seed in range(2):
        loader = DataLoader(datasets.MNIST(folder, transform=pixels), batch_size=128, shuffle=True)
        model = network(width, *cell, size, seed)
        one_network(model, loader, EPOCHS)
    return 2


def ours(train, width, size, cell):
    """Eight networks, as many at a time as the recipe says; returns how many."""
    recipe = Recipe(epochs=EPOCHS, batch_size=128, lr=0.01, **training.fastest(f"convnet-w{width}-d2-{cell[0]}", size))
    for first in range(0, MEMBERS, recipe.together):
        seeds = range(first, min(first + recipe.together, MEMBERS))
        training.fit_together([network(width, *cell, size, seed) for seed in seeds], train, recipe, seeds)
    return MEMBERS


def seconds(task, executor):
    """Per network, over all cells."""
    started = time.perf_counter()
    trained = sum(count for _, count in parallel.run(task, CELLS, executor))
    return (time.perf_counter() - started) / trained


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("size,n", [(8, 1437), (28, 512)])
def test_sweep_speed(size, n, width, tmp_path):
    n = sized(n, 64)
    train = data.load("digits", "train", n=n, size=size)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        pixels, labels = train.images.numpy(), train.labels.numpy().astype("uint8")
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, n, size, size) + pixels.tobytes())
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, n) + labels.tobytes())

    def loader():
        with seeded(0):
            return seconds(partial(usual, tmp_path, width, size), "serial")

    found = compare(partial(seconds, partial(ours, train, width, size), "processes"), loader, 3)
    report(f"a network of the sweep, width {width}, {size} px", "one after the other, from a DataLoader", found)
