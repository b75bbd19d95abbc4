"""Tensors that took long, kept as safetensors: decoded data sets, and measured values of a run that may be stopped."""

import hashlib
import json
from collections.abc import Callable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from saliency_lib.runtime.store import atomic, store_root

VERSION = 1  # raise when what is cached changes its meaning


def cached(key: dict, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What ``make()`` gives, from the cache if it was made for the same ``key`` before.

    A cache file that cannot be read is made again; a folder that cannot be written costs only the time. From the
    cache, bool is uint8.

    Parameters
    ----------
    key : dict
        All that decides the tensors, in JSON's types; ``name`` begins the file's name.
    """
    digest = hashlib.sha256(json.dumps([VERSION, key], sort_keys=True).encode()).hexdigest()[:12]
    path = store_root() / "cache" / f"{str(key['name']).split('/')[-1].replace(':', '-')}-{digest}.safetensors"
    if path.exists():
        try:
            return load_file(path)
        except (SafetensorError, OSError):
            pass
    tensors = make()
    try:
        with atomic(path) as temporary:
            whole = {k: v.to(torch.uint8) if v.dtype == torch.bool else v.contiguous() for k, v in tensors.items()}
            temporary.write_bytes(save(whole))
    except OSError:
        pass
    return tensors
