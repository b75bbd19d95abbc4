"""An ensemble is files: networks that differ only in chance, trained once, one file a member and one manifest.

``get(spec)`` trains what is missing. It can be killed and started again, and started twice at once: a member is
claimed by a lock that dies with its process, written under a temporary name and renamed.
"""

import hashlib
import itertools
import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import torch
import torchvision
from filelock import FileLock, Timeout
from torch import nn

from saliency_lib import data, executors, members, models, paths, training
from saliency_lib.paths import atomic, store_root
from saliency_lib.progress import progress
from saliency_lib.randomness import derive, seeded
from saliency_lib.training import Recipe

VERSION = 1  # raise when the same spec would train to other weights: networks, data or training have changed
INIT, ORDER = 0, 1  # the two kinds of chance
GROWING = ("n_members", "snapshots")  # what changes no weights


@dataclass(frozen=True)
class EnsembleSpec:
    """What an ensemble is; all but ``n_members`` and ``snapshots`` goes into its key, so that an ensemble can grow.

    Attributes
    ----------
    dataset, model, norm, activation, size
        As in :func:`saliency_lib.data.load` and :func:`saliency_lib.models.build`.
    recipe : Recipe
        How every member is trained; without a rate it takes that of :func:`saliency_lib.training.max_lr`.
    n_train, n_val : int, optional
        First images of the training and validation splits; default: all.
    vary : str
        What differs between members: ``"both"``, only ``"init"`` (initial weights) or only ``"order"`` (of batches).
    trained : bool
        False gives members with their initial weights, a control.
    seed : int
        Base of all seeds of the ensemble.
    snapshots : tuple of int
        Epochs, counted from 1, after which a member's weights are kept as well; members without are trained again.
    """

    dataset: str
    model: str
    n_members: int = 8
    recipe: Recipe = field(default_factory=Recipe)
    n_train: int | None = None
    n_val: int | None = None
    size: int | None = None
    norm: str | None = None
    activation: str = "relu"
    vary: str = "both"
    trained: bool = True
    seed: int = 0
    snapshots: tuple[int, ...] = ()

    def __post_init__(self):
        kept = set(self.snapshots)
        if kept - set(range(1, self.recipe.epochs + 1)) or (kept and not self.trained):
            known = f"epochs 1 to {self.recipe.epochs}" if self.trained else "trained networks"
            raise ValueError(f"snapshots are of {known}, not {list(self.snapshots)}")
        object.__setattr__(self, "snapshots", tuple(sorted(kept)))
        if self.vary not in ("both", "init", "order"):
            raise ValueError(f"unknown vary {self.vary!r}; one of ['both', 'init', 'order']")
        if self.n_members < 1:
            raise ValueError(f"an ensemble needs at least one member, not n_members={self.n_members}")
        if self.recipe.lr is None:
            values = asdict(self.recipe) | {"lr": training.max_lr(self.model)}
            object.__setattr__(self, "recipe", Recipe(**values))

    @property
    def key(self) -> str:
        """Folder name: readable, and unique to all that decides the weights."""
        content = {k: v for k, v in asdict(self).items() if k not in GROWING} | {"version": VERSION}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.dataset.split('/')[-1].replace(':', '-')}-{self.model}-{digest}"

    def seeds(self, member: int) -> tuple[int, int]:
        """Seeds of member's initial weights and of its batches; what does not vary takes those of member 0."""
        return (
            derive(self.seed, INIT, member if self.vary != "order" else 0),
            derive(self.seed, ORDER, member if self.vary != "init" else 0),
        )


@lru_cache(maxsize=4)
def _load(name: str, split: str, n: int | None, size: int | None, root: Path) -> data.ImageData:
    return data.load(name, split, n=n, size=size, root=root)


def splits(spec: EnsembleSpec) -> tuple[data.ImageData, data.ImageData]:
    """Training and validation images of the spec, on the CPU."""
    root = paths.data_root()
    return (
        _load(spec.dataset, "train", spec.n_train, spec.size, root),
        _load(spec.dataset, "val", spec.n_val, spec.size, root),
    )


def build(spec: EnsembleSpec, seed: int, classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """A member with fresh weights drawn from ``seed``, for pictures of ``shape`` (c, h, w)."""
    with seeded(seed):
        return models.build(spec.model, classes, shape[0], spec.norm, spec.activation, shape[1])


def train_members(spec: EnsembleSpec, which: Sequence[int], folder: Path) -> list[dict]:
    """Train some members side by side and write their files; the same call gives the same contents. Their records."""
    train, val = splits(spec)
    seeds, device = [spec.seeds(member) for member in which], spec.recipe.device
    networks = [build(spec, init, len(train.classes), train.shape) for init, _ in seeds]
    histories = [training.History() for _ in which]
    if spec.trained:
        histories = training.fit_together(
            networks, train, spec.recipe, [order for _, order in seeds], spec.snapshots, val
        )
    written = []
    for member, (init, order), model, history in zip(which, seeds, networks, histories):
        model.to(device).eval()
        written.append(
            {
                "key": spec.key,
                "member": member,
                "init_seed": init,
                "order_seed": order,
                "accuracy": history.val_accuracy[-1] if spec.trained else training.accuracy(model, val.to(device)),
                "history": {
                    "loss": history.loss,
                    "train_accuracy": history.train_accuracy,
                    "val_accuracy": history.val_accuracy,
                },
                "seconds": round(history.seconds, 2),
                "classes": len(train.classes),
                "shape": list(train.shape),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "torchvision": torchvision.__version__,
            }
        )
        members.save(member_path(folder, member), model.state_dict(), written[-1])
        run = members.checksum(member_path(folder, member))
        for epoch, state in history.snapshots.items():
            members.save(snapshot_path(folder, member, epoch), state, written[-1] | {"epoch": epoch, "run": run})
    return written


class Ensemble:
    """Trained members on disk: ``len(ensemble)``, and ``ensemble[i]`` gives member i as a module in eval mode."""

    def __init__(self, spec: EnsembleSpec, path: Path):
        self.spec, self.path = spec, path
        self.records = [members.record(member_path(path, i), spec.key) for i in range(spec.n_members)]

    def __len__(self) -> int:
        return len(self.records)

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


def member_path(folder: Path, member: int) -> Path:
    """``member-017.safetensors`` in the ensemble's folder."""
    return folder / f"member-{member:03d}.safetensors"


def snapshot_path(folder: Path, member: int, epoch: int) -> Path:
    """``epoch-004/member-017.safetensors`` in the ensemble's folder."""
    return member_path(folder / f"epoch-{epoch:03d}", member)


def _flaw(spec: EnsembleSpec, folder: Path, member: int) -> str | None:
    """Why a member must be trained (again); None if it is there and whole, with all snapshots."""
    last = member_path(folder, member)
    paths = {epoch: snapshot_path(folder, member, epoch) for epoch in spec.snapshots}
    if not all(path.exists() for path in (last, *paths.values())):
        return "missing"
    try:
        members.load(last, spec.key)
        for epoch, path in paths.items():
            members.load(path, spec.key)
            found = members.record(path, spec.key)
            if [found.get(k) for k in ("member", "epoch", "run")] != [member, epoch, members.checksum(last)]:
                return f"{path.parent.name}/{path.name} is not of the run that gave {last.name}"
    except members.CorruptMember as error:
        return str(error)
    return None


def _write_manifest(spec: EnsembleSpec, folder: Path) -> None:
    """Sum up the members that are there; every process that writes it writes the truth of that moment."""
    found = [members.record(path, spec.key) for path in sorted(folder.glob("member-*.safetensors"))]
    with atomic(folder / "manifest.json") as temporary:
        temporary.write_text(json.dumps({"spec": asdict(spec), "version": VERSION, "members": found}, indent=1) + "\n")


def _blocks(missing: list[int], together: int) -> list[list[int]]:
    """The missing members in blocks that are trained side by side: 0 to 7, 8 to 15 ..., as far as they are missing."""
    return [list(block) for _, block in itertools.groupby(missing, lambda member: member // together)]


def _claim(spec: EnsembleSpec, folder: Path, block: list[int]) -> list[dict] | None:
    """Train what is not whole by now of a block, and return its records; None while another process is at it."""
    first = block[0] - block[0] % spec.recipe.together
    try:
        with FileLock(folder / f".member-{first:03d}.lock", timeout=0):
            if missing := [member for member in block if _flaw(spec, folder, member)]:
                train_members(spec, missing, folder)
            return [members.record(member_path(folder, member), spec.key) for member in block]
    except Timeout:
        return None


def get(spec: EnsembleSpec, executor: str = "serial") -> Ensemble:
    """The ensemble of ``spec``, training only the members that are missing or corrupt.

    ``executor`` is one of :data:`saliency_lib.executors.EXECUTORS`.

    Raises
    ------
    ValueError
        For an unknown executor.
    """
    execute, folder = executors.get(executor), store_root() / "ensembles" / spec.key
    folder.mkdir(parents=True, exist_ok=True)
    flaws = {i: flaw for i in range(spec.n_members) if (flaw := _flaw(spec, folder, i))}
    for flaw in set(flaws.values()) - {"missing"}:
        warnings.warn(f"{flaw}; training it again", stacklevel=2)
    if missing := list(flaws):
        accuracies: list[float] = []
        with progress(total=len(missing), description=f"training {spec.key}") as bar:
            todo = _blocks(missing, spec.recipe.together)
            while todo:
                busy = []
                for block, records in execute(partial(_claim, spec, folder), todo):
                    if records is None:
                        busy.append(block)
                        continue
                    accuracies += [record["accuracy"] for record in records]
                    bar.set_postfix({"mean accuracy": f"{sum(accuracies) / len(accuracies):.3f}"}, refresh=False)
                    bar.update(len(records))
                if len(busy) == len(todo):
                    time.sleep(0.2)  # all of them are another process's
                todo = busy
        _write_manifest(spec, folder)
    return Ensemble(spec, folder)
