"""The sweep: training many small networks our way against the usual way, in one run.

Usual: one network after the other, a torchvision data set, a DataLoader, all settings at their defaults. Ours: what
notebook 04 does (``training.fastest`` in each kind of process). Both train the same architectures: two layers, with and
without ReLU, no and max-pooling. Median over interleaved pairs of time per network, with the range of their ratios.
"""

import statistics
import struct
import time
from functools import partial

import pytest
from bench_training import usual as one_network
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from saliency_lib import data, models, training
from saliency_lib.runtime import parallel
from saliency_lib.runtime.seeds import seeded
from saliency_lib.training import Recipe

CELLS = [(pool, activation) for pool in ("none", "max") for activation in ("none", "relu")]
MEMBERS, EPOCHS, GOALS = 8, 2, {4: 5, 16: 2, 64: 1.1}


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


@pytest.mark.parametrize("size,n", [(8, 1437), (28, 512)])
def test_sweep_speed(size, n, tmp_path, capsys):
    train = data.load("digits", "train", n=n, size=size)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        pixels, labels = train.images.numpy(), train.labels.numpy().astype("uint8")
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, n, size, size) + pixels.tobytes())
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, n) + labels.tobytes())
    lines = []
    for width, goal in GOALS.items():
        times = {"usual": [], "ours": []}
        for _ in range(4):
            with seeded(0):
                times["usual"].append(seconds(partial(usual, tmp_path, width, size), "serial"))
            times["ours"].append(seconds(partial(ours, train, width, size), "processes"))
        ratios = [u / o for u, o in zip(*times.values())][1:]
        lines.append(
            f"{size:2} px, width {width:2}: usual {1000 * statistics.median(times['usual'][1:]):7.0f} ms a network, "
            f"ours {1000 * statistics.median(times['ours'][1:]):7.0f}, {statistics.median(ratios):5.2f} times as fast "
            f"[{min(ratios):.2f}, {max(ratios):.2f}], goal {goal}"
        )
    with capsys.disabled():
        print("\n" + "\n".join(lines))
