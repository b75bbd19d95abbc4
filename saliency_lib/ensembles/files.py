"""An ensemble's files: one per member and snapshot, and a manifest; what is wrong with them, and how to load them."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from torch import nn

from saliency_lib.ensembles import members, sharing
from saliency_lib.ensembles.spec import VERSION, EnsembleSpec, build
from saliency_lib.runtime.store import atomic, store_root


def folder_of(spec: EnsembleSpec) -> Path:
    """Where the members of a spec lie on this machine."""
    return store_root() / "ensembles" / spec.key


def member_path(folder: Path, member: int) -> Path:
    """``member-017.safetensors`` in the ensemble's folder."""
    return folder / f"member-{member:03d}.safetensors"


def snapshot_path(folder: Path, member: int, epoch: int) -> Path:
    """``epoch-004/member-017.safetensors`` in the ensemble's folder."""
    return member_path(folder / f"epoch-{epoch:03d}", member)


def of_member(spec: EnsembleSpec, folder: Path, member: int) -> list[Path]:
    """The files that a member has: its last weights, and its snapshots."""
    return [member_path(folder, member), *(snapshot_path(folder, member, epoch) for epoch in spec.snapshots)]


def flaw(spec: EnsembleSpec, folder: Path, member: int) -> str | None:
    """Why a member must be trained (again); None if it is there and whole, with all snapshots."""
    last, *early = files = of_member(spec, folder, member)
    sharing.pull(folder, files)
    if not all(path.exists() for path in files):
        return "missing"
    try:
        members.load(last, spec.key)
        for epoch, path in zip(spec.snapshots, early):
            members.load(path, spec.key)
            found = members.record(path, spec.key)
            if [found.get(k) for k in ("member", "epoch", "run")] != [member, epoch, members.checksum(last)]:
                return f"{path.parent.name}/{path.name} is not of the run that gave {last.name}"
    except members.CorruptMember as error:
        return str(error)
    return None


def remove_leftovers(folder: Path, which: Sequence[int]) -> None:
    """Remove the half-written files of members that a run which was killed has left; the caller holds their lock."""
    for member in which:
        for left in folder.rglob(f".{member_path(folder, member).name}.*.tmp"):
            left.unlink(missing_ok=True)


def write_manifest(spec: EnsembleSpec, folder: Path) -> None:
    """Sum up the members that are there, where that says something new; every process writes the truth of its moment.

    It is for readers: where it cannot be written, the ensemble is as good.
    """
    found = []
    for path in sorted(folder.glob("member-*.safetensors")):
        with suppress(members.CorruptMember):
            found.append(members.record(path, spec.key))
    path = folder / "manifest.json"
    text = json.dumps({"spec": asdict(spec), "version": VERSION, "members": found}, indent=1) + "\n"
    with suppress(OSError):
        if not path.exists() or path.read_text() != text:
            with atomic(path) as temporary:
                temporary.write_text(text)


class Ensemble:
    """Trained members on disk: ``len(ensemble)``, and ``ensemble[i]`` gives member i as a module in eval mode."""

    def __init__(self, spec: EnsembleSpec, path: Path):
        self.spec, self.path = spec, path
        for i in range(spec.n_members):
            sharing.pull(path, of_member(spec, path, i))
        self.records = [members.record(member_path(path, i), spec.key) for i in range(spec.n_members)]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def key(self) -> str:
        """What tells this ensemble from others, also from one that has grown."""
        return f"{self.spec.key} x {len(self)}"

    def __getitem__(self, member: int) -> nn.Module:
        return self._load(member, member_path(self.path, member))

    def snapshot(self, member: int, epoch: int) -> nn.Module:
        """Member as it was after an epoch of its training, in eval mode; ValueError for one that was not kept."""
        if epoch not in self.spec.snapshots:
            raise ValueError(f"epoch {epoch} was not kept; the spec's snapshots are {list(self.spec.snapshots)}")
        return self._load(member, snapshot_path(self.path, member, epoch))

    def _load(self, member: int, path: Path) -> nn.Module:
        if not 0 <= member < len(self):
            raise IndexError(f"member {member} of an ensemble of {len(self)}")
        sharing.pull(self.path, [path])  # on a worker without a folder in common
        model = build(self.spec, 0, self.records[member]["classes"], tuple(self.records[member]["shape"]))
        model.load_state_dict(members.load(path, self.spec.key))
        return model.to(self.spec.recipe.device).eval()

    @property
    def accuracies(self) -> list[float]:
        """Validation accuracy of each member, in [0, 1]."""
        return [record["accuracy"] for record in self.records]

    @property
    def seconds(self) -> float:
        """Time that training took, all members together."""
        return sum(record["seconds"] for record in self.records)

    @property
    def bytes(self) -> int:
        """Size of the members on disk."""
        return sum(member_path(self.path, i).stat().st_size for i in range(len(self)))
