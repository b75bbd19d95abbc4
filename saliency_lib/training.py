"""One training loop for every network of the project."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_lib.augmentation import AUGMENT
from saliency_lib.checkpoint import Checkpoint
from saliency_lib.data import ImageData
from saliency_lib.hooks import layout_of
from saliency_lib.inference import accuracy
from saliency_lib.models.stacked import Stacked
from saliency_lib.outputs import of_output
from saliency_lib.recipe import Recipe
from saliency_lib.recipe import default_device as default_device
from saliency_lib.recipe import fastest as fastest
from saliency_lib.recipe import max_lr as max_lr
from saliency_lib.runtime.seeds import seeded


@dataclass
class History:
    """What a training run was like: one entry per epoch, accuracies in [0, 1], and weights kept along the way.

    The accuracy on validation images is None after epochs at which it was not measured.
    """

    loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    val_accuracy: list[float | None] = field(default_factory=list)
    seconds: float = 0.0
    snapshots: dict[int, dict[str, Tensor]] = field(default_factory=dict)


def permuted(labels: Tensor, seed: int) -> Tensor:
    """The same labels, (n,), dealt out to other images."""
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).to(labels.device)]


def _optimizer(model: nn.Module, recipe: Recipe, steps: int):
    """The optimizer and its schedule, which is stepped after every batch."""
    if recipe.lr is None:
        raise ValueError("the recipe has no learning rate: give Recipe(lr=...), for example training.max_lr(name)")
    if recipe.schedule == "adam_onecycle":
        optimizer = torch.optim.Adam(model.parameters(), recipe.lr, weight_decay=recipe.weight_decay, fused=True)
        # one extra step, so that the last batch is trained at a rate above zero and the cycle is never overrun
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=steps + 1)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    halvings = [round(steps / 2), round(steps * 5 / 6)]
    return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, halvings, gamma=0.5)


def fit(
    model: nn.Module,
    train: ImageData,
    recipe: Recipe,
    seed: int,
    snapshots: Sequence[int] = (),
    val: ImageData | None = None,
) -> History:
    """Train ``model`` in place; leaves it in eval mode on the recipe's device.

    The batches of an epoch are of nearly equal size and cover every image once. ``seed`` decides their order,
    augmentation and dropout; same seed, initial weights, machine and number of threads: same trained weights.

    Parameters
    ----------
    snapshots : sequence of int
        Epochs, counted from 1, after which a copy of the weights is kept in ``History.snapshots``.
    val : ImageData, optional
        Its accuracy is measured in the training's precision, after the last epoch and those of ``snapshots``.

    Raises
    ------
    FloatingPointError
        When the loss of an epoch is not finite.
    """
    return fit_together([model], train, recipe, [seed], snapshots, val)[0]


def fit_together(
    models: Sequence[nn.Module],
    train: ImageData,
    recipe: Recipe,
    seeds: Sequence[int],
    snapshots: Sequence[int] = (),
    val: ImageData | None = None,
    augmentation: Sequence[int | None] | None = None,
    checkpoint: Path | None = None,
) -> list[History]:
    """Train convnets, or MLPs, of one architecture side by side, each as :func:`fit` would alone, up to rounding.

    Every step is one step of all of them (:class:`saliency_lib.models.stacked.Stacked`), which saves time where a step
    costs more in calls than in arithmetic. The seconds in a history are the network's share. ``augmentation`` gives
    seeds of its own to the augmentation of some. A training of many minutes keeps its state in the file ``checkpoint``
    every few of them; a call after a kill goes on from there, to the same weights.
    """
    started, device, members = time.monotonic(), recipe.device, len(models)
    if not models or len(models) != len(seeds):
        raise ValueError(f"every network needs a seed of its own; there are {len(models)} networks, {len(seeds)} seeds")
    train, val = train.to(device), None if val is None else val.to(device)
    layout = _layout(models[0].to(device), recipe, train.inputs(slice(2)))
    for model in models:
        model.to(device).to(memory_format=layout)
    network: nn.Module = models[0] if members == 1 else Stacked(models).to(memory_format=layout)
    optimizer, schedule = _optimizer(network, recipe, recipe.epochs * math.ceil(len(train) / recipe.batch_size))
    histories, chance = [History() for _ in models], _generators(seeds, augmentation or [None] * members)
    state = Checkpoint(checkpoint, (network, optimizer, schedule), sum(chance, []), histories)
    with seeded(seeds[0]), torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False):
        done = state.load(snapshots)
        _hand_over(network, models)
        earlier = histories[0].seconds * members
        for epoch in range(done + 1, recipe.epochs + 1):
            loss, right = _epoch(network.train(), _batches(train, recipe, *chance), recipe, layout, optimizer, schedule)
            if not loss.isfinite().all():
                advice = f"lower the learning rate ({recipe.lr:g}) or look for broken pixels"
                raise FloatingPointError(f"the loss of epoch {epoch} is {loss.sum().item()}: {advice}")
            _hand_over(network, models)
            for model, history, total, hits in zip(models, histories, loss.tolist(), right.tolist()):
                history.loss.append(total / len(train))
                history.train_accuracy.append(hits / len(train))
                if val is not None:
                    looked_at = epoch == recipe.epochs or epoch in snapshots
                    history.val_accuracy.append(_right(model, val, recipe) if looked_at else None)
                if epoch in snapshots:
                    history.snapshots[epoch] = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
                history.seconds = (earlier + time.monotonic() - started) / members
            state.save(epoch)
    state.remove()
    return histories


def _layout(model: nn.Module, recipe: Recipe, images: Tensor) -> torch.memory_format:
    """The recipe's, unless the network flattens with ``.view``; whatever else it cannot do shows while it trains."""
    if not recipe.channels_last:
        return torch.contiguous_format
    with suppress(Exception), _precision(recipe):
        return layout_of(model, images)
    return torch.channels_last


def _hand_over(network: nn.Module, models: Sequence[nn.Module]) -> None:
    """Give the members the weights that were trained so far, in eval mode."""
    if isinstance(network, Stacked):
        network.copy_to(models)
    for model in models:
        model.eval()


def _epoch(network: nn.Module, batches: Iterator, recipe: Recipe, layout, optimizer, schedule) -> tuple[Tensor, Tensor]:
    """Sums over the images of every member's loss, and of how many it got right, (members,) each, while it trains."""
    loss: Tensor | float = 0.0
    right: Tensor | float = 0.0
    for x, y in batches:
        with _precision(recipe):
            out = of_output(network(x.contiguous(memory_format=layout))).reshape(*y.shape, -1)
        losses = F.cross_entropy(out.float().flatten(0, 1), y.flatten(), reduction="none").view(y.shape).mean(1)
        optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()
        optimizer.step()
        schedule.step()
        loss = loss + losses.detach() * y.shape[1]
        right = right + (out.detach().argmax(2) == y).sum(1)
    return torch.as_tensor(loss), torch.as_tensor(right)


def _right(model: nn.Module, val: ImageData, recipe: Recipe) -> float:
    """Share of validation images classified right."""
    with _precision(recipe):
        return accuracy(model, val.inputs(), val.labels)


def _precision(recipe: Recipe) -> torch.autocast:
    return torch.autocast(recipe.device, torch.bfloat16, enabled=bool(recipe.bfloat16))


def _generators(seeds: Sequence[int], augmentation: Sequence[int | None]) -> tuple[list[torch.Generator], ...]:
    """Of every member's order of batches, and of its augmentation: the same where that has no seed of its own."""
    orders = [torch.Generator().manual_seed(seed) for seed in seeds]
    changes = [g if seed is None else torch.Generator().manual_seed(seed) for seed, g in zip(augmentation, orders)]
    return orders, changes


def _batches(
    train: ImageData, recipe: Recipe, generators: Sequence[torch.Generator], changes: Sequence[torch.Generator]
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of inputs (n, members * c, h, w) and labels (members, n), for every member in an order of its own."""
    labels = train.labels if recipe.label_seed is None else permuted(train.labels, recipe.label_seed)
    order = torch.stack([torch.randperm(len(train), generator=g) for g in generators], 1).to(labels.device)
    for rows in order.tensor_split(math.ceil(len(train) / recipe.batch_size)):  # (images of the batch, members)
        images = train.images[rows]
        if recipe.augment != "none":
            images = torch.stack([AUGMENT[recipe.augment](images[:, i], g) for i, g in enumerate(changes)], 1)
        yield train.normalise(images.flatten(0, 1)).unflatten(0, rows.shape).flatten(1, 2), labels[rows].T
