"""One trained member as one file: weights, their checksum, and the record of how they came about."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor

from saliency_lib.runtime.store import atomic


class CorruptMember(Exception):
    """A member's file is truncated, changed, or not a member of this ensemble; the message says what is wrong."""


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes."""
    state = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return state.hexdigest()


def checksum(path: Path) -> str:
    """SHA-256 of a member's weights, as its file says; raises :class:`CorruptMember`."""
    with _open(path) as file:
        return (file.metadata() or {}).get("sha256", "")


def save(path: Path, state: dict[str, Tensor], record: dict) -> None:
    """Write ``state`` and ``record`` (JSON-able) to ``path``."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with atomic(path) as temporary:
        temporary.write_bytes(serialised(tensors, {"record": json.dumps(record), "sha256": digest(tensors)}))


def _open(path: Path):
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CorruptMember(f"{path.name} cannot be read ({error})") from error


def record(path: Path, key: str) -> dict:
    """What is known of a member, without reading its weights; raises :class:`CorruptMember` if it is not of ``key``."""
    with _open(path) as file:
        found = json.loads((file.metadata() or {}).get("record", "{}"))
    if found.get("key") != key:
        raise CorruptMember(f"{path.name} belongs to {found.get('key', 'no ensemble')}, not to {key}")
    return found


def load(path: Path, key: str) -> dict[str, Tensor]:
    """The weights, after comparing their checksum; raises :class:`CorruptMember`."""
    record(path, key)
    with _open(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        if digest(tensors) != file.metadata().get("sha256"):
            raise CorruptMember(f"{path.name} does not match its checksum")
    return tensors
