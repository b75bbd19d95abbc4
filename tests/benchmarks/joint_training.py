"""The measurements behind ``training.fastest``: the fastest way to train many small networks.

``python tests/benchmarks/joint_training.py`` appends the rows that are missing for this kind of device to
``joint_training.csv`` beside it: milliseconds per network and step of 128 random pictures, with everything that a step
of training costs. One network after the other (``loop``), side by side as grouped convolutions (``stacked``) or by
``torch.func.vmap`` (``vmap``), with all threads or in one process per core. On a CPU that computes in bfloat16 the same
in processes once more, as ``cpu-bf16``.
"""

import csv
import itertools
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, stack_module_state, vmap

from saliency_lib import models, training
from saliency_lib.data import ImageData
from saliency_lib.recipe import device_settings
from saliency_lib.runtime import parallel
from saliency_lib.runtime.seeds import seeded
from saliency_lib.training import Recipe, default_device

TABLE = Path(__file__).with_name("joint_training.csv")
BATCH, MEMBERS = 128, 8
WAYS = [
    (way, layout, executor)
    for way, layout in itertools.product(("loop", "stacked"), ("contiguous", "channels_last"))
    for executor in parallel.EXECUTORS
] + [("vmap", "contiguous", "serial")]
CELLS = list(itertools.product((8, 28), (1, 2, 3), ("none", "max", "avg"), (4, 8, 16, 32, 64)))


def pictures(size: int, steps: int) -> ImageData:
    """Random ones, a batch a step."""
    generator, n = torch.Generator().manual_seed(0), BATCH * steps
    images = torch.randint(0, 256, (n, 1, size, size), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (n,), generator=generator)
    return ImageData(images, labels, None, tuple("0123456789"), torch.tensor([0.5]), torch.tensor([0.3]), "random")


def networks(size: int, depth: int, pool: str, width: int) -> list:
    """Fresh members."""
    with seeded(0):
        return [models.build(f"convnet-w{width}-d{depth}-{pool}", 10, 1, size=size) for _ in range(MEMBERS)]


def by_vmap(members: list, train: ImageData, recipe: Recipe) -> None:
    """One epoch of Adam, all members at once."""
    device = recipe.device
    parameters, _ = stack_module_state([member.to(device) for member in members])
    optimizer = torch.optim.Adam(parameters.values(), lr=recipe.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=len(train) // BATCH + 1)
    train = train.to(device)

    def loss(weights, x, y):
        return F.cross_entropy(functional_call(members[0], weights, (x,)), y)

    for rows in torch.stack([torch.randperm(len(train)) for _ in members], 1).split(BATCH):
        x = torch.stack([train.normalise(train.images[column]) for column in rows.T])
        found = vmap(grad(loss))(parameters, x, train.labels[rows.T])
        for name, parameter in parameters.items():
            parameter.grad = found[name]
        optimizer.step()
        schedule.step()


def train_once(way: str, layout: str, device: str, steps: int, cell: tuple) -> None:
    """All members, one epoch of ``steps`` batches."""
    train, members = pictures(cell[0], steps), networks(*cell)
    device, _, half = device.partition("-")
    options = {"channels_last": layout == "channels_last", "bfloat16": bool(half) or device == "cuda"}
    recipe = Recipe(epochs=1, batch_size=BATCH, lr=1e-3, device=device, **options)
    if way == "vmap":
        with seeded(0):
            by_vmap(members, train, recipe)
    elif way == "stacked":
        training.fit_together(members, train, recipe, range(MEMBERS))
    else:
        for seed, member in enumerate(members):
            training.fit(member, train, recipe, seed)


def milliseconds(way: str, layout: str, device: str, cell: tuple) -> float:
    """Per network and step in this process, the fastest of three, or up to the first over 5 s."""
    steps, times = 2, []
    while len(times) < 3:
        started = time.perf_counter()
        train_once(way, layout, device, steps, cell)
        seconds = time.perf_counter() - started
        if seconds < 0.15 and steps < 32:
            steps *= 2  # too short to tell
            continue
        times.append(1000 * seconds / (MEMBERS * steps))
        if seconds > 5:
            break
    return min(times)


if __name__ == "__main__":
    device = default_device()
    device += "-bf16" if device == "cpu" and device_settings(device)["bfloat16"] else ""
    ways = [way for way in WAYS if way[2] == "processes" or "-" not in device]
    known = list(csv.DictReader(TABLE.open())) if TABLE.exists() else []
    names = ("device", "size", "depth", "pool", "width", "way", "layout", "executor")
    done = {tuple(row[name] for name in names) for row in known}
    cores, spawn = torch.get_num_threads(), get_context("spawn")
    with (
        TABLE.open("a", newline="") as file,
        ProcessPoolExecutor(cores, spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        out = csv.writer(file)
        if not known:
            out.writerow([*names, "ms"])
        for cell, way in itertools.product(CELLS, ways):
            key = (device, *map(str, cell), *way)
            if key in done:
                continue
            task = partial(milliseconds, *way[:2], device, cell)
            if way[2] == "serial":
                ms = task()
            else:  # one on each core at a time, each with the work of all members
                ms = statistics.mean(future.result() for future in [pool.submit(task) for _ in range(cores)]) / cores
            out.writerow([*key, f"{ms:.3g}"])
            file.flush()
