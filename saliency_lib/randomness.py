"""Randomness is an explicit seed; the global state is left as it was found."""

from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int):
    """Seed PyTorch's global generators inside the block (layers and dropout draw from them); restore them after."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def derive(*key: int) -> int:
    """A seed for one purpose out of several numbers: well mixed, the same on every machine, in [0, 2**32)."""
    if min(key) < 0:
        raise ValueError(f"seeds are not negative, unlike {min(key)}")
    return int(np.random.SeedSequence(key).generate_state(1)[0])
