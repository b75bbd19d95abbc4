"""Get an ensemble: train what is missing of it, wherever the executor says.

``get(spec)`` can be killed and started again, and started twice at once: a member is claimed by a lock that dies with
its process, written under a temporary name and renamed.
"""

import itertools
import time
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
import torchvision
from filelock import Timeout
from torch import nn

from saliency_lib import training
from saliency_lib.ensembles import files, members, sharing
from saliency_lib.ensembles.files import Ensemble, folder_of, member_path, snapshot_path
from saliency_lib.ensembles.spec import EnsembleSpec, build, splits
from saliency_lib.inference import accuracy
from saliency_lib.runtime import executors
from saliency_lib.runtime.progress import progress
from saliency_lib.runtime.store import locked

PATIENCE = 20  # rounds of waiting for another process, about 40 s, before it is said


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
    written, failed = [], []
    for member, (init, order), model, history in zip(which, seeds, networks, histories):
        model.to(device).eval()
        written.append(
            {
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
        )
        try:
            _save(folder, member, model, history, written[-1])
        except OSError as error:  # the others of the block are saved first
            failed.append(error)
    if failed:
        raise failed[0]
    return written


def _save(folder: Path, member: int, model: nn.Module, history: training.History, record: dict) -> None:
    last = member_path(folder, member)
    members.save(last, model.state_dict(), record)
    run = members.checksum(last)
    for epoch, state in history.snapshots.items():
        members.save(snapshot_path(folder, member, epoch), state, record | {"epoch": epoch, "run": run})


def _blocks(missing: list[int], together: int) -> list[list[int]]:
    """The missing members in blocks that are trained side by side: 0 to 7, 8 to 15 ..., as far as they are missing."""
    return [list(block) for _, block in itertools.groupby(missing, lambda member: member // together)]


def _claim(spec: EnsembleSpec, block: list[int]) -> list[dict] | None:
    """Train what is not whole by now of a block, and return its records; None while another process is at it."""
    folder, lock = folder_of(spec), _lock(spec, block)
    try:
        with locked(lock, timeout=0):
            missing = [member for member in block if files.flaw(spec, folder, member)]
            if missing:
                files.remove_leftovers(folder, missing)
                train_members(spec, missing, folder)
            for member in block:
                sharing.push(folder, files.of_member(spec, folder, member), overwrite=member in missing)
            return [members.record(member_path(folder, member), spec.key) for member in block]
    except Timeout:
        return None


def _lock(spec: EnsembleSpec, block: list[int]) -> Path:
    return folder_of(spec) / f".member-{block[0] - block[0] % spec.recipe.together:03d}.lock"


def _train(spec: EnsembleSpec, missing: list[int], executor: executors.Executor) -> None:
    """Train the blocks of the missing members; those that other processes are at are waited for."""
    accuracies: list[float] = []
    failures, waits = [], 0
    with progress(total=len(missing), description=f"training {spec.key}") as bar:
        todo = _blocks(missing, spec.recipe.together)
        while todo:
            busy = []
            try:
                for block, records in executor.map(partial(_claim, spec), todo, spec.recipe.device):
                    if records is None:
                        busy.append(block)
                        continue
                    accuracies += [record["accuracy"] for record in records]
                    bar.set_postfix({"mean accuracy": f"{sum(accuracies) / len(accuracies):.3f}"}, refresh=False)
                    bar.update(len(records))
            except executors.TasksFailed as error:
                failures += error.failures
            if len(busy) == len(todo):  # all of them are another process's
                waits += 1
                if waits == PATIENCE:
                    warnings.warn(f"waiting for another run that holds {_lock(spec, busy[0])}", stacklevel=3)
                time.sleep(min(5, 0.2 * waits))
            todo = busy
    if failures:
        raise RuntimeError(_failed(spec, failures))


def _failed(spec: EnsembleSpec, failures: list[tuple[list[int], BaseException]]) -> str:
    """What a person needs to know of members that failed at every try: their numbers, seeds and errors."""
    folder, said = folder_of(spec), []
    for block, reason in failures:
        names = "; ".join(
            f"member {i} (seeds {', '.join(map(str, spec.seeds(i)))})" for i in block if files.flaw(spec, folder, i)
        )
        said.append(f"{names or f'members {block}'}: {executors.described(reason)}")
    return f"{executors.TRIES} tries each were not enough for {' and '.join(said)}. The others are trained and kept"


def get(spec: EnsembleSpec, executor: str = "serial") -> Ensemble:
    """The ensemble of ``spec``, training only the members that are missing or corrupt.

    ``executor`` is as in :func:`saliency_lib.runtime.executors.get`. On workers elsewhere, members reach this machine
    through a folder in common (``SALIENCY_STORE``) or a store that fsspec knows (``SALIENCY_MEMBERS``).

    Raises
    ------
    ValueError
        For an unknown executor.
    RuntimeError
        On a Dask cluster, once all others are trained: for members that failed three times, with their seeds.
    """
    execute, folder = executors.get(executor), folder_of(spec)
    flaws = {i: flaw for i in range(spec.n_members) if (flaw := files.flaw(spec, folder, i))}
    for flaw in set(flaws.values()) - {"missing"}:
        warnings.warn(f"{flaw}; training it again", stacklevel=2)
    if flaws:
        _train(spec, list(flaws), execute)
    if lost := [i for i in flaws if files.flaw(spec, folder, i)]:
        raise FileNotFoundError(
            f"members {lost} were trained by workers that share no folder with {folder}: "
            "set SALIENCY_STORE to a folder that all machines see, or SALIENCY_MEMBERS to a store that all reach"
        )
    ensemble = Ensemble(spec, folder)
    for i in set(range(spec.n_members)) - set(flaws):  # of an earlier run, or without a common store
        sharing.push(folder, files.of_member(spec, folder, i))
    files.write_manifest(spec, folder)
    return ensemble
