"""What docs/scaling.md counts with: how fast members of the papers' sizes train, and what merging their maps takes.

``python tests/benchmarks/scaling.py`` writes the rows that are missing to ``docs/scaling.csv``, for the device at hand.
A row is one epoch over a few random images, in the recipe of profile ``paper``; ``merge`` rows are seconds for the
moments of two members.
"""

import csv
import statistics
import time

import torch

from saliency_lib import data, models, training
from saliency_lib.runtime.seeds import seeded
from saliency_lib.runtime.store import PROJECT
from saliency_lib.snr import Moments

TABLE = PROJECT / "docs" / "scaling.csv"
SIZES = {"cifar10": 32, "imagenette": 128}
NETWORKS = {"resnet18": "relu", "vgg19": "relu", "resnet101": "relu"}
IMAGES = {"cpu": {32: 256, 128: 64}, "cuda": {32: 25_600, 128: 5_120}}
EVALUATED = 500  # images whose maps are merged, as in profile paper


def images_per_second(network: str, size: int, device: str) -> float:
    """Median of three epochs after one that is not counted."""
    count, generator = IMAGES[device][size], torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    half = torch.full((3,), 0.5)
    labels = torch.arange(count) % 10
    train = data.ImageData(pixels, labels, None, tuple("0123456789"), half, half, "random")
    with seeded(0):
        model = models.build(network, 10, size=size)
    recipe = training.Recipe(epochs=1, batch_size=min(128, count // 2), lr=1e-4, augment="flip_crop", device=device)
    seconds = [training.fit(model, train, recipe, seed).seconds for seed in range(4)][1:]
    return count / statistics.median(seconds)


def merge_seconds(size: int) -> float:
    """Median of five merges of two members' moments."""
    one, other = (Moments().update(torch.randn(EVALUATED, 3, size, size)) for _ in range(2))
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        Moments().merge(one).merge(other)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    """Fill in the rows that are missing."""
    device = training.default_device()
    done = list(csv.DictReader(TABLE.open())) if TABLE.exists() else []
    known = {(row["what"], row["dataset"], row["device"]) for row in done}
    for dataset, size in SIZES.items():
        for what in (*NETWORKS, "merge"):
            if (what, dataset, device) in known:
                continue
            value = merge_seconds(size) if what == "merge" else images_per_second(what, size, device)
            unit = "s" if what == "merge" else "images/s"
            versions = {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__}
            done.append(
                {"what": what, "dataset": dataset, "size": size, "value": f"{value:.3g}", "unit": unit} | versions
            )
            with TABLE.open("w", newline="") as file:
                writer = csv.DictWriter(file, done[0])
                writer.writeheader()
                writer.writerows(done)


if __name__ == "__main__":
    with torch.random.fork_rng():
        main()
