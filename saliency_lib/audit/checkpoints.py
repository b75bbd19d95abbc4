"""What checkpoints hold: weights for a network, wherever they stand in a file, without running code of it."""

import argparse
import pickle
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import GoogLeNet, Inception3

PLAIN = "the file itself"
COUNT = "num_batches_tracked"
USUAL = ("", "state_dict", "model_state_dict", "model", "net", "network", "module")  # keys of trained weights
AUXILIARY = {GoogLeNet: "aux", Inception3: "AuxLogits"}  # heads that torchvision's own weights come without
# What torch.compile, FSDP and checkpointing of activations put into names, also in the middle.
WRAPPED = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
AVERAGED = ("ema", "averag", "swa")  # in the names of weights that are means over training
# What checkpoints hold beside weights and that runs no code of anybody's: options and numbers.
NUMBERS = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")]
REBUILT = [
    (value.__reduce__()[0], f"numpy.{core}.multiarray.{name}")  # the module's name before and since NumPy 2
    for value, name in ((np.float64(0), "scalar"), (np.zeros(1), "_reconstruct"))
    for core in ("core", "_core")
]
HARMLESS: list[Any] = [argparse.Namespace, np.dtype, np.ndarray, *NUMBERS, *REBUILT]
UNREADABLE = (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError)


def content(path: Path) -> Any:
    """What a file holds, without running code of it; ValueError for what cannot be read so."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(HARMLESS):
            warnings.simplefilter("ignore")  # of protocols; whatever is no state dict is refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise ValueError(f"it {_reason(path)}; save model.state_dict()") from error


def _reason(path: Path) -> str:
    """Why a file cannot be read: it names a class, or it is broken."""
    refused: list[str] = []
    with suppress(Exception), torch.serialization.safe_globals(HARMLESS):  # it may be no archive of PyTorch's
        refused = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    if refused:
        return f"holds objects of {', '.join(sorted(refused)[:3])}, whose code would have to be run"
    return "cannot be read as weights or is broken"


def _states(content: Any, where: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """All mappings of names to tensors in a checkpoint, by the path of keys to them, outermost first; names are as
    without wrappers."""
    if not isinstance(content, Mapping):
        return
    named = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    tensors = {WRAPPED.sub("", name): value for name, value in named.items()}
    if tensors:
        yield where, tensors
    for key, value in content.items():
        yield from _states(value, f"{where}.{key}" if where else str(key))


@dataclass(frozen=True)
class Found:
    """Weights for a network in a checkpoint: where they stand, under which prefix, and what else is there."""

    where: str
    prefix: str
    state: dict[str, Tensor]  # by the network's own names
    rest: list[str]  # names that the network has not

    def rank(self) -> tuple:
        """The order in which they are taken: no moving averages, nothing left over, a usual key, the outermost; of
        equals the first in the file."""
        averaged = any(word in f"{self.where}.{self.prefix}".lower() for word in AVERAGED)
        return averaged, len(self.rest), self.where not in USUAL, f"{self.where}.{self.prefix}".count(".")

    def __str__(self) -> str:
        place = repr(self.where) if self.where else PLAIN
        return f"{place}, names after {self.prefix!r}" if self.prefix else place


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """The network's state dict without what a module's ``get_extra_state`` adds to it."""
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def weights_for(content: Any, model: nn.Module) -> list[Found]:
    """Every set of weights in a checkpoint that has all names of the network under one prefix, the best first.

    A batch normalisation's count of batches may be missing, and so may torchvision's auxiliary heads: logits do not
    depend on them.
    """
    own, found = tensors_of(model), []
    heads = tuple(head for kind, head in AUXILIARY.items() if isinstance(model, kind))
    needed = [name for name in own if not name.endswith(COUNT) and not name.startswith(heads)]
    for where, tensors in _states(content):
        ends = [name for name in tensors if f".{name}".endswith(f".{needed[0]}")]
        for prefix in dict.fromkeys(name.removesuffix(needed[0]) for name in ends):
            inside = [name.removeprefix(prefix) for name in tensors if name.startswith(prefix)]
            if all(prefix + name in tensors for name in needed) and not any(_other(name, model) for name in inside):
                state = {name: tensors.get(prefix + name, own[name]) for name in own}
                rest = [name for name in tensors if name.removeprefix(prefix) not in own or not name.startswith(prefix)]
                found.append(Found(where, prefix, state, rest))
    return sorted(found, key=Found.rank)


def _other(name: str, model: nn.Module) -> bool:
    """Whether a name is of another network: of a row of modules that this one has, but behind its end; or of a bias or
    statistic that this one does without."""
    parts, module = name.split("."), model
    for part in parts[:-1]:
        children = dict(module.named_children())
        if part not in children:
            return bool(children) and part.isdigit() and isinstance(module, (nn.Sequential, nn.ModuleList))
        module = children[part]
    known = module._parameters | module._buffers
    return known.get(parts[-1], ...) is None and parts[-1] not in module._non_persistent_buffers_set


def said_of(choices: list[Found]) -> str:
    """Which of the weights are taken, the first, and what is left aside; nothing of a file that holds them alone."""
    first, others = choices[0], " or ".join(map(str, choices[1:]))
    said = [f"weights of {first}{f', not of {others}' if others else ''}"] if str(first) != PLAIN or others else []
    if rest := [name for name in first.rest if not any(c.prefix and name.startswith(c.prefix) for c in choices)]:
        said.append(f"{len(rest)} tensors that the network has not are ignored, as {rest[0]}")
    return "; ".join(said)


def other_classes(state: dict[str, Tensor], model: nn.Module) -> int | None:
    """The number of classes of weights that differ from the network's in their first side alone; None if they do not,
    or in more."""
    own = tensors_of(model)
    pairs = [(state[name].shape, own[name].shape) for name in own if state[name].shape != own[name].shape]
    heads = {theirs[0] if theirs and ours and theirs[1:] == ours[1:] else None for theirs, ours in pairs}
    return heads.pop() if len(heads) == 1 else None


def differing(content: Any, model: nn.Module) -> str:
    """What speaks against a checkpoint: none of its weights has all names of the network, or shapes are others."""
    states = dict(_states(content))
    if not states:
        return "it holds no state dict; save model.state_dict()"
    own = {name: tuple(t.shape) for name, t in tensors_of(model).items()}
    where, nearest = max(states.items(), key=lambda item: len(own.keys() & item[1].keys()))
    prefixes = Counter(name.removesuffix(mine) for name in nearest for mine in own if f".{name}".endswith(f".{mine}"))
    prefix = prefixes.most_common(1)[0][0] if prefixes else ""
    shapes = {name.removeprefix(prefix): tuple(t.shape) for name, t in nearest.items()}
    names = [name for name in own | shapes if own.get(name) != shapes.get(name)]
    example = f"{names[0]} is {shapes.get(names[0], 'missing')} in place of {own.get(names[0], 'none')}"
    return f"it is a checkpoint of another architecture: {len(names)} tensors differ, as {example}"
