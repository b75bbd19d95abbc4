"""What an ensemble is: the specification that decides all weights, its data, and a network with fresh weights."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from saliency_lib import data, models, training
from saliency_lib.runtime import parallel, store
from saliency_lib.runtime.seeds import derive, seeded
from saliency_lib.training import Recipe

VERSION = 1  # raise when the same spec would train to other weights: networks, data or training have changed
INIT, ORDER, AUGMENT = 0, 1, 2  # the kinds of chance
VARY = ("both", "init", "order", "augment", "bit")
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
        What differs between members: ``"both"`` (initial weights, and batches with their augmentation), only
        ``"init"``, only ``"order"`` (batches with their augmentation), only ``"augment"`` (the augmentation), or one
        ``"bit"``, the last one of one initial weight, another weight in each member.
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
        for name, value in vars(self).items():
            if isinstance(value, np.integer):
                object.__setattr__(self, name, int(value))
        kept = set(self.snapshots)
        if kept - set(range(1, self.recipe.epochs + 1)) or (kept and not self.trained):
            known = f"epochs 1 to {self.recipe.epochs}" if self.trained else "trained networks"
            raise ValueError(f"snapshots are of {known}, not {list(self.snapshots)}")
        object.__setattr__(self, "snapshots", tuple(sorted(kept)))
        if self.vary not in VARY:
            raise ValueError(f"unknown vary {self.vary!r}; one of {list(VARY)}")
        if self.vary == "augment" and self.recipe.augment == "none":
            raise ValueError("members that differ in their augmentation need some; set the recipe's augment")
        if self.n_members < 1:
            raise ValueError(f"an ensemble needs at least one member, not n_members={self.n_members}")
        if self.recipe.lr is None:
            values = asdict(self.recipe) | {"lr": training.max_lr(self.model)}
            object.__setattr__(self, "recipe", Recipe(**values))

    @property
    def key(self) -> str:
        """Folder name: readable, and unique to all that decides the weights; of pictures in a folder to what they show,
        wherever it lies."""
        content = {k: v for k, v in asdict(self).items() if k not in GROWING} | {"version": VERSION}
        kind, _, place = self.dataset.partition(":")
        if place:
            content["dataset"] = kind, _shown(self.dataset, self.n_train, self.n_val, self.size, store.data_root())
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
        return f"{Path(place).name or kind}-{self.model}-{digest}"

    def seeds(self, member: int) -> tuple[int, int]:
        """Seeds of member's initial weights and of its batches; what does not vary takes those of member 0."""
        return (
            derive(self.seed, INIT, member if self.vary in ("both", "init") else 0),
            derive(self.seed, ORDER, member if self.vary in ("both", "order") else 0),
        )

    def augmentation(self, member: int) -> int | None:
        """Seed of member's augmentation; None where it goes on from the batches' own draws."""
        return derive(self.seed, AUGMENT, member) if self.vary == "augment" else None


@lru_cache(maxsize=4)
def _load(name: str, split: str, n: int | None, size: int | None, root: Path) -> data.ImageData:
    return data.load(name, split, n=n, size=size, root=root)


@lru_cache(maxsize=4)
def _shown(name: str, n_train: int | None, n_val: int | None, size: int | None, root: Path) -> str:
    """A digest of classes, pictures and labels."""
    parts = _load(name, "train", n_train, size, root), _load(name, "val", n_val, size, root)
    state = hashlib.sha256(repr(parts[0].classes).encode())
    for part in parts:
        state.update(part.images.numpy().tobytes() + part.labels.numpy().tobytes())
    return state.hexdigest()


def forget() -> None:
    """Read data anew when they are asked for next."""
    _load.cache_clear()


def splits(spec: EnsembleSpec) -> tuple[data.ImageData, data.ImageData]:
    """Training and validation images of the spec, on the CPU."""
    root = store.data_root()
    return (
        _load(spec.dataset, "train", spec.n_train, spec.size, root),
        _load(spec.dataset, "val", spec.n_val, spec.size, root),
    )


def shares(
    networks: Sequence[nn.Module], images: data.ImageData, every: int = 1
) -> list[tuple[nn.Module, Tensor, Tensor, Tensor]]:
    """Every network with images of its own: image i goes to network i modulo their number.

    So an interval over networks is one over images too. Of each network's images ``every`` other one is taken.

    Returns
    -------
    list of tuple
        (network, inputs (n, c, h, w), labels (n,), masks (n, h, w)).

    Raises
    ------
    ValueError
        For images without masks.
    """
    if images.masks is None:
        raise ValueError("these images have no masks; photodigits, cdigits and cmnist have some")
    rows = [slice(k, None, every * len(networks)) for k in range(len(networks))]
    return [(net, images.inputs(own), images.labels[own], images.masks[own]) for net, own in zip(networks, rows)]


def over_shares(
    measure: Callable[..., Tensor],
    dealt: Sequence[tuple],
    methods: Sequence,
    seeds: Sequence[int],
    executor: str = "serial",
    **options,
) -> Tensor:
    """``measure(network, inputs, labels, masks, methods=, seed=, **options)`` of each of :func:`shares` with methods
    and a seed of its own: (..., networks, images) float64, on the CPU.

    What is measured, wherever ``executor`` says, is kept in the store, so that a run that was stopped goes on.
    ValueError where networks have unequal numbers of images.
    """
    if len(counts := {len(share[1]) for share in dealt}) > 1:
        raise ValueError(f"networks have {min(counts)} to {max(counts)} images; deal out a multiple of {len(dealt)}")
    items = [(share, own, seed) for share, own, seed in zip(dealt, methods, seeds, strict=True)]
    device = dealt[0][1].device.type if dealt else "cpu"
    found = parallel.kept(partial(_of_share, measure, options), items, executor, device, measure.__name__)
    return torch.stack(found, -2).cpu().double()


def _of_share(measure: Callable[..., Tensor], options: dict, item: tuple) -> Tensor:
    share, methods, seed = item
    return measure(*share, methods=methods, seed=seed, **options)


def build(spec: EnsembleSpec, seed: int, classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """A member with fresh weights drawn from ``seed``, for pictures of ``shape`` (c, h, w)."""
    with seeded(seed):
        return models.build(spec.model, classes, shape[0], spec.norm, spec.activation, shape[1])


@torch.no_grad()
def flip_bit(model: nn.Module, which: int) -> None:
    """Flip the last bit of one weight of the first layer, the smallest change that there is."""
    weights = next(model.parameters()).view(-1)
    weights.view(torch.int32)[which % len(weights)] ^= 1
