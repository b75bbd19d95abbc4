"""Lines to the terminal, and progress bars that keep quiet where ``SALIENCY_QUIET`` is set, as under papermill."""

import os
import sys

from tqdm.auto import tqdm


def progress(iterable=None, description: str = "", total: int | None = None) -> tqdm:
    """tqdm over ``iterable``, or a bar of ``total`` steps to move by hand."""
    return tqdm(iterable, desc=description, total=total, leave=False, disable=bool(os.environ.get("SALIENCY_QUIET")))


def say(text: str) -> None:
    """One line to the terminal, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
