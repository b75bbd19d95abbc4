"""One training loop for every network of the project."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_lib.data import ImageData
from saliency_lib.inference import accuracy
from saliency_lib.models.catalogue import CONVNET
from saliency_lib.models.stacked import Stacked
from saliency_lib.runtime.seeds import seeded

# Fixed per kind of device and recorded in every recipe; never chosen by timing, since weights must repeat.
DEVICE_SETTINGS = {"cpu": {"channels_last": True, "bfloat16": False}, "cuda": {"channels_last": True, "bfloat16": True}}
# Best peak rate for Adam one-cycle in the sweep of tests/benchmarks/learning_rates.py (its table: learning_rates.csv).
MAX_LR = {"convnet": 1e-2, "lenet": 3e-3, "cnn": 3e-3, "mlp": 3e-4, "vgg11": 3e-4, "vgg16": 3e-4, "vgg19": 3e-4}
DEFAULT_LR = 0.01  # Woerl et al. 4.1, for their ResNet18; used for every residual network
# What :func:`fastest` chooses is what won in tests/benchmarks/joint_training.csv, for batches of 128.
TOGETHER = 8  # members that are trained side by side, where that pays
WIDEST = {(True, True): 16, (True, False): 4, (False, True): 4, (False, False): 0}  # by (small pictures, pooling)


def default_device() -> str:
    """``"cuda"`` where there is a GPU, else ``"cpu"``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; part of an ensemble's key, so every field is recorded.

    Attributes
    ----------
    schedule : str
        ``"adam_onecycle"`` (Adam, one-cycle rate that peaks at ``lr``) or ``"sgd_step"`` (momentum SGD, ``lr`` halved
        after 1/2 and 5/6 of the epochs, which is after 15 and 25 of 30).
    lr : float, optional
        Peak learning rate; default 0.01 (Woerl et al.), for networks without shortcuts that of a small sweep.
    augment : str
        ``"none"`` or ``"flip_crop"`` (random mirror image, random shift by up to an eighth of the side).
    label_seed : int, optional
        Train on labels permuted with this seed (Adebayo et al.); default: the true ones.
    together : int
        Members of an ensemble that are trained side by side (:func:`fit_together`); convnets and the MLP. Which ones
        those are changes the weights by rounding only.
    device : str
        ``"cpu"`` or ``"cuda"``; default: the GPU where there is one. Sets ``channels_last`` and ``bfloat16``.
    """

    schedule: str = "adam_onecycle"
    epochs: int = 8
    batch_size: int = 128
    lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 0.0
    augment: str = "none"
    label_seed: int | None = None
    together: int = 1
    device: str = field(default_factory=default_device)
    channels_last: bool | None = None
    bfloat16: bool | None = None

    def __post_init__(self):
        if self.schedule not in ("adam_onecycle", "sgd_step"):
            raise ValueError(f"unknown schedule {self.schedule!r}; one of ['adam_onecycle', 'sgd_step']")
        if self.augment not in ("none", "flip_crop"):
            raise ValueError(f"unknown augment {self.augment!r}; one of ['none', 'flip_crop']")
        if self.device not in DEVICE_SETTINGS:
            raise ValueError(f"unknown device {self.device!r}; one of {sorted(DEVICE_SETTINGS)}")
        for name in ("epochs", "batch_size", "together"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name, value in DEVICE_SETTINGS[self.device].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)


def max_lr(model_name: str) -> float:
    """Peak learning rate for Adam one-cycle: 0.01 for residual networks, that of the sweep for the others."""
    return MAX_LR.get(model_name.split("-")[0], DEFAULT_LR)


def fastest(model: str, size: int, device: str | None = None) -> dict:
    """Options of :class:`Recipe` with which convnets train fastest, a process on each core.

    On a CPU, grouped convolutions win for a few channels, the more the smaller the pictures; channels last wins
    wherever there is pooling, and else for a few channels of larger pictures in several layers. On a GPU nothing was
    measured: the recipe's defaults.

    Parameters
    ----------
    model : str
        ``convnet-w16-d2-max`` or the like.
    size : int
        Side of the pictures in pixels.
    device : str, optional
        Default: the GPU where there is one.
    """
    device, match = device or default_device(), CONVNET.fullmatch(model)
    if not match:
        raise ValueError(f"only convnets were measured, such as convnet-w16-d2-max, not {model!r}")
    if device != "cpu":
        return {"device": device}
    width, depth, pool = match.groups()
    width, small, pooled = int(width), size <= 16, pool != "none"
    last = pooled or (not small and width <= 8 and int(depth) > 1)
    return {"device": device, "channels_last": last, "together": TOGETHER if width <= WIDEST[small, pooled] else 1}


@dataclass
class History:
    """What a training run was like: one entry per epoch, accuracies in [0, 1], and weights kept along the way."""

    loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    val_accuracy: list[float] = field(default_factory=list)
    seconds: float = 0.0
    snapshots: dict[int, dict[str, Tensor]] = field(default_factory=dict)


def permuted(labels: Tensor, seed: int) -> Tensor:
    """The same labels, (n,), dealt out to other images."""
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).to(labels.device)]


def flip_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of a batch (n, c, h, w), and shift each picture by up to an eighth of its side, edges repeated."""
    n, _, h, w = images.shape
    flips = torch.rand(n, generator=generator) < 0.5
    pad = max(1, h // 8)
    shifts = torch.randint(0, 2 * pad + 1, (2, n), generator=generator)
    padded = F.pad(images.float(), (pad,) * 4, mode="replicate").to(images.dtype)
    columns = torch.where(flips[:, None], torch.arange(w).flip(0), torch.arange(w)) + shifts[1][:, None]
    rows = torch.arange(h) + shifts[0][:, None]
    batch = torch.arange(n)[:, None, None].to(images.device)
    picked = padded.permute(0, 2, 3, 1)[batch, rows[:, :, None].to(images.device), columns[:, None].to(images.device)]
    return picked.permute(0, 3, 1, 2)


def _optimizer(model: nn.Module, recipe: Recipe, steps: int):
    """The optimizer and its schedule, which is stepped after every batch."""
    if recipe.lr is None:
        raise ValueError("the recipe has no learning rate: give Recipe(lr=...), for example training.max_lr(name)")
    if recipe.schedule == "adam_onecycle":
        optimizer = torch.optim.Adam(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
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
        Measured after every epoch.

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
) -> list[History]:
    """Train convnets, or MLPs, of one architecture side by side, each as :func:`fit` would alone, up to rounding.

    Every step is one step of all of them (:class:`saliency_lib.models.stacked.Stacked`), which saves time where a step
    costs more in calls than in arithmetic. The seconds in a history are the network's share.
    """
    started, device, members = time.monotonic(), recipe.device, len(models)
    if not models or len(models) != len(seeds):
        raise ValueError(f"every network needs a seed of its own; there are {len(models)} networks, {len(seeds)} seeds")
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    for model in models:
        model.to(device).to(memory_format=layout)
    network: nn.Module = models[0] if members == 1 else Stacked(models).to(memory_format=layout)
    train, val = train.to(device), None if val is None else val.to(device)
    optimizer, schedule = _optimizer(network, recipe, recipe.epochs * math.ceil(len(train) / recipe.batch_size))
    histories, generators = [History() for _ in models], [torch.Generator().manual_seed(seed) for seed in seeds]
    with seeded(seeds[0]), torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False):
        for epoch in range(1, recipe.epochs + 1):
            network.train()
            loss, right = torch.zeros((2, members), device=device)
            for x, y in _batches(train, recipe, generators):
                with torch.autocast(device, torch.bfloat16, enabled=bool(recipe.bfloat16)):
                    out = network(x.contiguous(memory_format=layout)).reshape(*y.shape, -1)
                losses = F.cross_entropy(out.float().flatten(0, 1), y.flatten(), reduction="none").view(y.shape).mean(1)
                optimizer.zero_grad(set_to_none=True)
                losses.sum().backward()
                optimizer.step()
                schedule.step()
                loss += losses.detach() * y.shape[1]
                right += (out.detach().argmax(2) == y).sum(1)
            if not loss.isfinite().all():
                advice = f"lower the learning rate ({recipe.lr:g}) or look for broken pixels"
                raise FloatingPointError(f"the loss of epoch {epoch} is {loss.sum().item()}: {advice}")
            if isinstance(network, Stacked):
                network.copy_to(models)
            for model, history, total, hits in zip(models, histories, loss.tolist(), right.tolist()):
                model.eval()
                history.loss.append(total / len(train))
                history.train_accuracy.append(hits / len(train))
                if val is not None:
                    history.val_accuracy.append(accuracy(model, val.inputs(), val.labels))
                if epoch in snapshots:
                    history.snapshots[epoch] = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
    for history in histories:
        history.seconds = (time.monotonic() - started) / members
    return histories


def _batches(
    train: ImageData, recipe: Recipe, generators: Sequence[torch.Generator]
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of inputs (n, members * c, h, w) and labels (members, n), for every member in an order of its own."""
    labels = train.labels if recipe.label_seed is None else permuted(train.labels, recipe.label_seed)
    order = torch.stack([torch.randperm(len(train), generator=g) for g in generators], 1).to(labels.device)
    for rows in order.tensor_split(math.ceil(len(train) / recipe.batch_size)):  # (images of the batch, members)
        images = train.images[rows]
        if recipe.augment == "flip_crop":
            images = torch.stack([flip_crop(images[:, i], g) for i, g in enumerate(generators)], 1)
        yield train.normalise(images.flatten(0, 1)).unflatten(0, rows.shape).flatten(1, 2), labels[rows].T
