"""Folders that ``save_pretrained`` of transformers has written: a config, weights, and how pictures are prepared."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from saliency_lib.audit.checkpoints import content

CONFIG = "config.json"
WEIGHTS = ("model", "pytorch_model")  # stems of the files


def is_saved(path: Path) -> bool:
    """Whether a file holds weights that transformers has saved."""
    return path.stem in WEIGHTS and (path.parent / CONFIG).is_file()


def make(transformers: Any, folder: Path, **options: int) -> nn.Module:
    """The image classifier that the folder's config describes, with fresh weights."""
    with _quietly(transformers):
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, **options)
        return transformers.AutoModelForImageClassification.from_config(config)


def read(transformers: Any, path: Path) -> Any:
    """What a checkpoint holds; weights that transformers has saved go by the names that the network has for them.

    In files some go by the names of older versions.
    """
    if not is_saved(path):
        return content(path)
    load = transformers.AutoModelForImageClassification.from_pretrained
    with _quietly(transformers):
        safe = {"use_safetensors": path.suffix == ".safetensors"}  # of two files in one folder the one that is meant
        model, info = load(path.parent, local_files_only=True, output_loading_info=True, **safe)
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"it lacks {len(missing)} tensors of the classifier, as {missing[0]}")
    return model.state_dict() | {name: torch.empty(0) for name in info["unexpected_keys"]}


@contextmanager
def _quietly(transformers: Any) -> Iterator[None]:
    """Without bars and reports; what they say is looked at."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def processing(folder: Path) -> tuple[tuple[int, int] | None, Sequence[float] | None, Sequence[float] | None]:
    """(height, width), mean and std of the folder's image processor, these of pixels in [0, 1]; None without one."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return None, None, None
    said = json.loads(file.read_text(encoding="utf-8"))
    size = said.get("crop_size") if said.get("do_center_crop") else None
    size = size or said.get("size")
    if isinstance(size, dict):
        size = (size["height"], size["width"]) if "height" in size else size.get("shortest_edge")
    if isinstance(size, int):
        size = (size, size)
    mean, std = said.get("image_mean"), said.get("image_std")
    if not said.get("do_normalize", True) or mean is None or std is None:
        channels = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("num_channels", 3)
        mean, std = [0.0] * channels, [1.0] * channels
    scale = 255 * said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 255
    return tuple(size) if size else None, [m / scale for m in mean], [s / scale for s in std]
