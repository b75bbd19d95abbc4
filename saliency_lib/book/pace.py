"""How long notebooks will take at ``quick``, from the minutes in their metadata and a few seconds of training."""

import time
from collections.abc import Iterable

import torch

from saliency_lib.book import profiles
from saliency_lib.data import ImageData
from saliency_lib.models import build
from saliency_lib.recipe import Recipe
from saliency_lib.runtime.machine import cores
from saliency_lib.runtime.seeds import seeded
from saliency_lib.training import fit

REFERENCE = 740  # images a second of one thread, on the machine on which the minutes were measured


def minutes(notebooks: Iterable[str]) -> float:
    """Of one core of that machine, from an empty store."""
    return sum(profiles.content(name)["metadata"].get("saliency", {}).get("minutes", 0) for name in notebooks)


def images_a_second(n: int = 64 * 20) -> float:
    """Images that one thread trains on in a second here: resnet_small, 32 pixels, half of them in float32, as maps are
    made, and half as networks are trained."""
    generator, threads = torch.Generator().manual_seed(0), torch.get_num_threads()
    pixels = torch.randint(0, 256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8)
    classes, labels = tuple(map(str, range(10))), torch.arange(n) % 10
    data = ImageData(pixels, labels, None, classes, torch.zeros(3), torch.ones(3), "random")
    seconds = 0.0
    torch.set_num_threads(1)
    try:
        for recipe in (Recipe(epochs=1, batch_size=64, lr=0.01, bfloat16=half) for half in (False, None)):
            with seeded(0):
                network = build("resnet_small", 10)
            fit(network, data.take(64), recipe, 0)  # what is slow only once
            started = time.monotonic()
            fit(network, data, recipe, 0)
            seconds += time.monotonic() - started
        return 2 * n / seconds
    finally:
        torch.set_num_threads(threads)


def expected(notebooks: Iterable[str]) -> float:
    """Minutes on all cores of this machine, if no network is trained yet."""
    return minutes(notebooks) / cores() * REFERENCE / images_a_second()


def left(seconds: float, ended: Iterable[str], running: Iterable[str], waiting: Iterable[str]) -> float:
    """Minutes that are left after some seconds, if those that are running are half done; 0 where nothing is known."""
    half = minutes(running) / 2
    done, rest = minutes(ended) + half, minutes(waiting) + half
    return seconds / 60 * rest / done if done else 0.0
