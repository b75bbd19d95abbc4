"""Progress bars that keep quiet where nobody watches (``SALIENCY_QUIET`` is set, as under papermill)."""

import os

from tqdm.auto import tqdm


def progress(iterable=None, description: str = "", total: int | None = None) -> tqdm:
    """tqdm over ``iterable``, or a bar of ``total`` steps to move by hand."""
    return tqdm(iterable, desc=description, total=total, leave=False, disable=bool(os.environ.get("SALIENCY_QUIET")))
