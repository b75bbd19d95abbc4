"""An ensemble's files: one per member and snapshot, with its record and checksum, and a manifest of all."""

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor

from saliency_lib.ensembles.spec import VERSION, EnsembleSpec
from saliency_lib.runtime.store import atomic, store_root


class CorruptMember(Exception):
    """A member's file is truncated, changed, or not a member of this ensemble; the message says what is wrong."""


def folder_of_key(key: str) -> Path:
    """Where the members of an ensemble lie on this machine."""
    return store_root() / "ensembles" / key


def folder_of(spec: EnsembleSpec) -> Path:
    """Where the members of a spec lie on this machine."""
    return folder_of_key(spec.key)


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of networks below a folder, by its name there."""
    paths = sorted(folder.rglob("*.safetensors"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def member_path(folder: Path, member: int) -> Path:
    """``member-017.safetensors`` in the ensemble's folder."""
    return folder / f"member-{member:03d}.safetensors"


def snapshot_path(folder: Path, member: int, epoch: int) -> Path:
    """``epoch-004/member-017.safetensors`` in the ensemble's folder."""
    return member_path(folder / f"epoch-{epoch:03d}", member)


def checkpoint_path(folder: Path, which: Sequence[int]) -> Path:
    """``.training-016-017-….pt``, the state of a training of these members that was stopped."""
    numbers = hashlib.sha256(repr(tuple(which)).encode()).hexdigest()[:8]
    return folder / f".training-{which[0]:03d}-{which[-1]:03d}-{numbers}.pt"


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes."""
    state = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def packed(state: dict[str, Tensor], record: dict) -> bytes:
    """The content of a file: weights, their checksum, and a record (JSON-able) of how they came about."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    return serialised(tensors, {"record": json.dumps(record), "sha256": digest(tensors)})


def write(folder: Path, contents: dict[Path, bytes]) -> None:
    """Write files into the ensemble's folder, each whole or not at all."""
    for name, content in contents.items():
        with atomic(folder / name) as temporary:
            temporary.write_bytes(content)


def _open(path: Path):
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CorruptMember(f"{path.name} cannot be read ({error})") from error


def checksum(path: Path) -> str:
    """SHA-256 of a member's weights, as its file says; raises :class:`CorruptMember`."""
    with _open(path) as file:
        return (file.metadata() or {}).get("sha256", "")


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
    if digest(tensors) != checksum(path):
        raise CorruptMember(f"{path.name} does not match its checksum")
    return tensors


def flaw(spec: EnsembleSpec, folder: Path, member: int) -> str | None:
    """Why a member must be trained (again), as far as the heads of its files say; None if all are there."""
    last = member_path(folder, member)
    early = {epoch: snapshot_path(folder, member, epoch) for epoch in spec.snapshots}
    if not all(path.exists() for path in (last, *early.values())):
        return "missing"
    try:
        record(last, spec.key)
        for epoch, path in early.items():
            found = record(path, spec.key)
            if [found.get(k) for k in ("member", "epoch", "run")] != [member, epoch, checksum(last)]:
                return f"{path.parent.name}/{path.name} is not of the run that gave {last.name}"
    except CorruptMember as error:
        return str(error)
    return None


def remove_leftovers(folder: Path, which: Sequence[int]) -> None:
    """Remove what a run which was killed has left of members, but for the state of just their training: half-written
    files, and states of trainings of others of their block; the caller holds its lock."""
    for member in which:
        for left in folder.rglob(f".{member_path(folder, member).name}.*.tmp"):
            left.unlink(missing_ok=True)
    for left in folder.glob(".*training-*"):
        first, last = map(int, re.findall(r"training-(\d+)-(\d+)", left.name)[0])
        if first <= which[-1] and last >= which[0] and left != checkpoint_path(folder, which):
            left.unlink(missing_ok=True)


def write_manifest(spec: EnsembleSpec, folder: Path) -> None:
    """Sum up the members that are there, where that says something new; every process writes the truth of its moment.

    It is for readers: where it cannot be written, the ensemble is as good.
    """
    found = []
    for path in sorted(folder.glob("member-*.safetensors")):
        with suppress(CorruptMember):
            found.append(record(path, spec.key))
    path = folder / "manifest.json"
    text = json.dumps({"spec": asdict(spec), "version": VERSION, "members": found}, indent=1) + "\n"
    with suppress(OSError):
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            with atomic(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
