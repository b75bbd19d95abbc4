"""Get an ensemble: train what is missing of it, wherever the executor says; its files are written here.

``get(spec)`` can be killed and started again, and started twice at once: a member is claimed by a lock that dies with
its process just before it is trained, written under a temporary name and renamed.
"""

import itertools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torchvision
from filelock import Timeout
from torch import nn

from saliency_lib import training
from saliency_lib.ensembles import files
from saliency_lib.ensembles.files import folder_of, member_path, snapshot_path
from saliency_lib.ensembles.spec import EnsembleSpec, build, flip_bit, splits
from saliency_lib.estimates import Estimate, student
from saliency_lib.inference import accuracy
from saliency_lib.runtime import parallel
from saliency_lib.runtime.progress import progress
from saliency_lib.runtime.store import COURSE, locked, writing

USED: dict[str, int] = {}  # members of the ensembles that this process asked for, by key


def train_members(spec: EnsembleSpec, which: Sequence[int]) -> dict[Path, bytes]:
    """Train some members side by side; the same call gives the same weights. Their files, by names in the folder."""
    train, val = splits(spec)
    seeds, device = [spec.seeds(member) for member in which], spec.recipe.device
    networks = [build(spec, init, len(train.classes), train.shape) for init, _ in seeds]
    if spec.vary == "bit":
        for member, network in zip(which, networks):
            flip_bit(network, member)
    histories = [training.History() for _ in which]
    if spec.trained:
        histories = training.fit_together(
            networks, train, spec.recipe, [order for _, order in seeds], spec.snapshots, val,
            augmentation=[spec.augmentation(member) for member in which],
            checkpoint=files.checkpoint_path(folder_of(spec), which),
        )  # fmt: skip
    made = {}
    for member, (init, order), model, history in zip(which, seeds, networks, histories):
        model.to(device).eval()
        record = {
            "key": spec.key,
            "member": member,
            "init_seed": init,
            "order_seed": order,
            "accuracy": history.val_accuracy[-1] if spec.trained else accuracy(model, val.inputs(), val.labels),
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
        run = files.digest(model.state_dict())
        for epoch, state in history.snapshots.items():
            name = snapshot_path(Path(), member, epoch)
            made[name] = files.packed(state, record | {"epoch": epoch, "run": run})
        made[member_path(Path(), member)] = files.packed(model.state_dict(), record)
    return made


def _lock(spec: EnsembleSpec, block: Sequence[int]) -> Path:
    return folder_of(spec) / f".member-{block[0] - block[0] % spec.recipe.together:03d}.lock"


def _claimed(spec: EnsembleSpec, blocks: list, locks: dict[tuple, ExitStack], busy: list) -> Iterator[tuple[int, ...]]:
    """What is missing by now of each block, once its lock is got; blocks of other processes go to ``busy`` instead."""
    folder = folder_of(spec)
    for block in blocks:
        with ExitStack() as lock:
            try:
                lock.enter_context(locked(_lock(spec, block), timeout=0))
            except Timeout:
                busy.append(block)
                continue
            if missing := tuple(member for member in block if files.flaw(spec, folder, member)):
                files.remove_leftovers(folder, missing)
                locks[missing] = lock.pop_all()
                yield missing


def _train(spec: EnsembleSpec, missing: Sequence[int], executor: str) -> None:
    """Train the missing members, in blocks side by side; those that other processes are at are waited for."""
    folder, accuracies, failures = folder_of(spec), [], []
    todo = [list(block) for _, block in itertools.groupby(missing, lambda member: member // spec.recipe.together)]
    with progress(total=len(missing), description=f"training {spec.key}") as bar:
        while todo:
            locks, busy = {}, []
            claimed = _claimed(spec, todo, locks, busy)
            try:
                with closing(parallel.run(partial(train_members, spec), claimed, executor, spec.recipe.device)) as done:
                    for block, made in done:
                        files.write(folder, made)
                        locks.pop(block).close()
                        accuracies += [files.record(member_path(folder, i), spec.key)["accuracy"] for i in block]
                        bar.set_postfix({"mean accuracy": f"{sum(accuracies) / len(accuracies):.3f}"}, refresh=False)
                        bar.update(len(block))
            except parallel.TasksFailed as error:
                failures += error.failures
            finally:
                for lock in locks.values():
                    lock.close()
            if busy:
                with locked(_lock(spec, busy[0]), shared=True):  # until who has it is done, or gone
                    pass
            todo = busy
    if failures:
        raise RuntimeError(_failed(spec, failures))


def _failed(spec: EnsembleSpec, failures: list[tuple[tuple[int, ...], BaseException]]) -> str:
    """What a person needs to know of members that failed at every try: their numbers, seeds and errors."""
    said = []
    for block, reason in failures:
        names = "; ".join(f"member {i} (seeds {', '.join(map(str, spec.seeds(i)))})" for i in block)
        said.append(f"{names}: {parallel.described(reason)}")
    return f"{parallel.TRIES} tries each were not enough for {' and '.join(said)}. The others are trained and kept"


class Ensemble:
    """Trained members on disk: ``len(ensemble)``, and ``ensemble[i]`` gives member i as a module in eval mode.

    Attributes
    ----------
    key : str
        Tells its results from those of other ensembles.
    records : list of dict
        How each member came about: seeds, accuracy, history, seconds.
    """

    def __init__(self, spec: EnsembleSpec, path: Path):
        self.spec, self.path, self.key = spec, path, f"{spec.key} x {spec.n_members}"
        self.records = [files.record(member_path(path, i), spec.key) for i in range(spec.n_members)]

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
        """The network of a file; a member whose weights are broken is trained again."""
        if not 0 <= member < len(self):
            raise IndexError(f"member {member} of an ensemble of {len(self)}")
        try:
            state = files.load(path, self.spec.key)
        except files.CorruptMember as error:
            warnings.warn(f"{error}; training it again", stacklevel=3)
            with writing(path):
                path.unlink(missing_ok=True)
            _train(self.spec, [member], "serial")
            state = files.load(path, self.spec.key)
        model = build(self.spec, 0, self.records[member]["classes"], tuple(self.records[member]["shape"]))
        model.load_state_dict(state)
        return model.to(self.spec.recipe.device).eval()

    @property
    def accuracies(self) -> list[float]:
        """Validation accuracy of each member, in [0, 1], in the precision of its training."""
        return [record["accuracy"] for record in self.records]

    def learnt(self) -> list[float]:
        """Accuracy of each member on its training images, in [0, 1], by the labels that it was taught."""
        train, of_seed = splits(self.spec)[0].to(self.spec.recipe.device), self.spec.recipe.label_seed
        taught = train.labels if of_seed is None else training.permuted(train.labels, of_seed)
        return [accuracy(self[k], train.inputs(), taught) for k in range(len(self))]

    @property
    def training_accuracies(self) -> list[float]:
        """Of each member the accuracy on the training images, in [0, 1], during its last epoch."""
        return [record["history"]["train_accuracy"][-1] for record in self.records]

    @property
    def seconds(self) -> float:
        """Time that training took, all members together."""
        return sum(record["seconds"] for record in self.records)


def get(spec: EnsembleSpec, executor: str = "serial") -> Ensemble:
    """The ensemble of ``spec``, training only the members that are missing or corrupt.

    ``executor`` is as in :mod:`saliency_lib.runtime.parallel`; workers need no folder in common with this machine.

    Raises
    ------
    ValueError
        For an unknown executor.
    RuntimeError
        On workers, once all others are trained: for members that failed three times, with their seeds.
    """
    parallel.check(executor)
    spec = at_hand(spec)
    folder = folder_of(spec)
    flaws = {i: flaw for i in range(spec.n_members) if (flaw := files.flaw(spec, folder, i))}
    for flaw in set(flaws.values()) - {"missing"}:
        warnings.warn(f"{flaw}; training it again", stacklevel=2)
    if flaws:
        _train(spec, list(flaws), executor)
    ensemble = Ensemble(spec, folder)
    files.write_manifest(spec, folder)
    USED[spec.key] = max(spec.n_members, USED.get(spec.key, 0))
    return ensemble


def at_hand(spec: EnsembleSpec) -> EnsembleSpec:
    """The spec; in the folder of a course that in the other precision, where its networks came from such a machine."""
    other = replace(spec, recipe=replace(spec.recipe, bfloat16=not spec.recipe.bfloat16))
    given = COURSE and folder_of(other).exists() and not folder_of(spec).exists()
    return other if given else spec


def outcome(ensemble: Ensemble) -> dict[str, Estimate]:
    """``accuracy``, ``training accuracy`` and ``training loss`` after the last epoch, means over members."""
    return {
        "accuracy": student(ensemble.accuracies),
        "training accuracy": student(ensemble.training_accuracies),
        "training loss": student([record["history"]["loss"][-1] for record in ensemble.records]),
    }
