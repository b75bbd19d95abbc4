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


# What draws are for that hang on one method's or metric's seed: derive(seed, PURPOSE, ...). All differ, so that noise
# on weights, on inputs and of a method itself have nothing in common.
WEIGHTS, INPUTS, LEVELS, NUDGES, _, SUBSETS, MEMBERS, LAYERS = range(101, 109)


def derive(*key: int) -> int:
    """A seed for one purpose out of several numbers: well mixed, the same on every machine, in [0, 2**32).

    Zeros at the end do not count: ``derive(5, 2) == derive(5, 2, 0)``.
    """
    if min(key) < 0:
        raise ValueError(f"seeds are not negative, unlike {min(key)}")
    return int(np.random.SeedSequence(key).generate_state(1)[0])
