"""Dreams: pictures that make networks as sure of a class as can be, with lucent, for one network or many at once."""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from saliency_lib.attribution.grids import first_of
from saliency_lib.hooks import device_of, dtype_of, hooked
from saliency_lib.inference import check
from saliency_lib.noisegrad import perturbed
from saliency_lib.outputs import of_output
from saliency_lib.runtime.progress import progress
from saliency_lib.runtime.seeds import MEMBERS, WEIGHTS, derive, seeded

with warnings.catch_warnings():  # of what lucent needs
    warnings.simplefilter("ignore")
    from lucent.optvis import objectives, param, transform

RATE = 0.05  # of Adam, as in lucent


def dream(
    models: Sequence[nn.Module],
    target: int | Sequence[int],
    size: int,
    mean: Tensor,
    std: Tensor,
    steps: int = 512,
    seed: int = 0,
    objective: str | Callable | None = None,
    *,
    input_size: int | None = None,
    subset: int | None = None,
    sigma: float = 0.0,
    n_draws: int = 1,
) -> Tensor:
    """A picture that maximises the mean over models of a logit, or of another objective of lucent's.

    Woerl et al. 2023, 4.4, for an ensemble; Bykov et al. 2022, Eq. 4, with ``sigma``. As lucent's ``render_vis`` (Olah
    et al. 2017): the picture is parametrised by its spectrum, its colours decorrelated, and changed a little at random
    before every step. Models take turns in each step, so that memory does not grow with their number.

    Parameters
    ----------
    models : sequence of Module
        In evaluation mode. One gives what lucent gives for it.
    target : int or sequence of int
        Class whose logit is maximised, unless there is an ``objective``; of several, one picture each, which start from
        the same noise, see the same random changes, and are what each would be alone.
    size : int
        Side of the picture in pixels.
    mean, std : Tensor
        (c,), of the models' data, as ``ImageData.mean`` and ``.std``; one channel gives a grey picture.
    steps : int
        Of Adam at a rate of 0.05.
    objective : str or callable, optional
        As in lucent: ``"layer3:7"`` for a channel, or one of ``lucent.optvis.objectives``. Layers are named as in
        lucent, dots replaced by underscores; ``"labels"`` is what the model returns. It sees the pictures of all
        targets; ``"layer3:7"`` is their mean.
    input_size : int, optional
        Side to which the picture is brought before a model sees it; default: ``size``. lucent's own is 224.
    subset : int, optional
        Models that take part in each step, drawn anew; default: all.
    sigma, n_draws
        Noise on the weights as in :func:`saliency_lib.noisegrad.perturbed`, ``n_draws`` times per model and step.

    Returns
    -------
    Tensor
        (c, size, size), of a sequence of targets (n, c, size, size); float32 in [0, 1], on the CPU.

    Raises
    ------
    ValueError
        Without models, for one in training mode, a class or layer that it lacks, or numbers that are out of range.
    """
    input_size, targets = size if input_size is None else input_size, torch.as_tensor(target).flatten()
    _check(models, targets, mean, std, min(size, input_size, steps, n_draws), subset, objective)
    for model in models:
        check(model, torch.zeros(1, len(mean), input_size, input_size, dtype=dtype_of(model)))
    wanted = MeanObjective(
        models, _logits_of(targets) if objective is None else objective, seed, subset, sigma, n_draws
    )
    see = _seen(mean, std, input_size, device_of(models[0], torch.empty(0)))
    with seeded(seed), _numpy_seeded(seed), torch.enable_grad():
        waves, picture = _start(size, None if len(mean) == 3 else len(mean), len(targets))
        optimizer = torch.optim.Adam(waves, lr=RATE)
        for _ in progress(range(steps), "dream"):
            optimizer.zero_grad()
            inputs = see(picture())
            inputs.backward(wanted.gradient(inputs.detach()))
            optimizer.step()
    found = picture().detach().cpu()
    return found if torch.as_tensor(target).ndim else found[0]


def views(pictures: Tensor, mean: Tensor, std: Tensor, input_size: int, n: int = 16, seed: int = 0) -> Tensor:
    """What models see of pictures (pictures, c, h, w) in [0, 1] while they dream: normalised inputs on the CPU,
    (n, pictures, c, input_size, input_size).

    ``n`` draws of lucent's random changes, the same for all pictures.
    """
    if pictures.ndim != 4:
        raise ValueError(f"expected pictures (n, c, h, w), not {tuple(pictures.shape)}; picture[None] makes one of one")
    see = _seen(mean, std, input_size, "cpu")
    with _numpy_seeded(seed):
        return torch.stack([see(pictures) for _ in range(n)])


class MeanObjective:
    """What is minimised: an objective of lucent's, mean over models, which take turns; parameters as in
    :func:`dream`."""

    def __init__(
        self,
        models: Sequence[nn.Module],
        objective: str | Callable,
        seed: int = 0,
        subset: int | None = None,
        sigma: float = 0.0,
        n_draws: int = 1,
    ):
        self.models, self.objective, self.subset = models, objectives.as_objective(objective), subset
        self.sigma, self.n_draws = sigma, n_draws if sigma else 1
        self.order = torch.Generator().manual_seed(derive(seed, MEMBERS))
        self.noise = [torch.Generator().manual_seed(derive(seed, WEIGHTS, k)) for k in range(len(models))]

    def gradient(self, inputs: Tensor) -> Tensor:
        """By the inputs (n, c, h, w), with the next draws of models and noise."""
        numbers, total = range(len(self.models)), torch.zeros_like(inputs)
        if self.subset is not None:
            numbers = torch.randperm(len(self.models), generator=self.order)[: self.subset].tolist()
        for k in numbers:
            for _ in range(self.n_draws):
                with perturbed(self.models[k], self.sigma, self.noise[k]) if self.sigma else nullcontext():
                    total = total + _gradient(self.models[k], inputs, self.objective)
        return total * (1 / (len(numbers) * self.n_draws))


def _gradient(model: nn.Module, inputs: Tensor, objective: Callable) -> Tensor:
    x = inputs.clone().requires_grad_()
    with torch.enable_grad(), _activations(model) as activation:
        model(x.clone().to(device_of(model, x), dtype_of(model)))  # which may be changed in place
        try:
            loss = objective(activation)
        except IndexError as error:
            raise ValueError(f"the objective asks for what its layer does not have: {error}") from error
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        raise ValueError(f"the objective gives {loss!r}, not one number that depends on the pictures")
    if not loss.isfinite():
        raise ValueError(f"the objective is {loss.item()}; look at the model's weights, and at mean and std")
    return torch.autograd.grad(loss, x)[0]


@contextmanager
def _activations(model: nn.Module) -> Iterator[Callable[[str], Tensor]]:
    """What lucent's objectives ask, by layer name, of the forward passes inside the block."""
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name.replace(".", "_") or "labels")
    found: dict[str, Tensor] = {}

    def keep(module: nn.Module, _inputs, output) -> None:
        of_it = of_output(output) if "labels" in names[module] else first_of(output)
        found.update(dict.fromkeys(names[module], of_it))

    def activation(layer: str) -> Tensor:
        if layer not in found:
            raise ValueError(f"no layer {layer!r} took part; one of {', '.join(found)}")
        return found[layer]

    with hooked(list(names), keep):
        yield activation


def _seen(mean: Tensor, std: Tensor, input_size: int, device: str | torch.device) -> Callable[[Tensor], Tensor]:
    """Pictures as a model on the device sees them: changed at random where lucent has its tensors, normalised,
    brought to size."""
    mean, std = (torch.as_tensor(v, dtype=torch.float32, device=device).view(-1, 1, 1) for v in (mean, std))
    changed = transform.compose(transform.standard_transforms)
    brought = nn.Upsample(input_size, mode="bilinear", align_corners=True)  # as lucent does
    return lambda pictures: brought((changed(pictures.to(transform.device)).to(device) - mean) / std)


def _logits_of(targets: Tensor) -> objectives.Objective:
    return sum(objectives.channel("labels", int(target), batch=i) for i, target in enumerate(targets))


def _start(size: int, channels: int | None, n: int) -> tuple[list[Tensor], Callable[[], Tensor]]:
    """lucent's parameters and pictures, n of them from the noise that one would have."""
    alone = param.image(size, channels=channels)
    if n == 1:
        return alone
    parameters, pictures = param.image(size, channels=channels, batch=n)
    with torch.no_grad():
        for together, own in zip(parameters, alone[0]):
            together.copy_(own.expand_as(together))
    return parameters, pictures


def _check(models, targets: Tensor, mean, std, least: int, subset: int | None, objective) -> None:
    """Raise ValueError for what does not go together; ``least`` is the smallest of all sizes and counts."""
    if isinstance(models, nn.Module):
        raise ValueError(f"models are a list; for one write [{type(models).__name__.lower()}]")
    if not len(models) or not len(targets):
        raise ValueError(f"a dream needs at least one model and one target, not {len(models)} and {len(targets)}")
    if targets.is_floating_point() or (targets < 0).any():
        raise ValueError(f"targets are numbers of classes from 0, not {targets.tolist()}")
    if least < 1:
        raise ValueError(f"size, input_size, steps and n_draws are at least 1, not {least}")
    if subset is not None and not 1 <= subset <= len(models):
        raise ValueError(f"a subset of {len(models)} models has 1 to {len(models)}, not {subset}")
    mean, std = torch.as_tensor(mean), torch.as_tensor(std)
    if mean.ndim != 1 or mean.shape != std.shape or not (std > 0).all():
        raise ValueError(
            f"expected mean and std (c,), one value per channel and std above 0, not {mean.tolist()} and {std.tolist()}"
        )
    named = isinstance(objective, str) and re.fullmatch(r"[^:]+:\s*\d+\s*", objective)
    if not (objective is None or named or callable(objective)):
        raise ValueError(f"an objective is 'layer:channel', or a function as of lucent's objectives, not {objective!r}")


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """NumPy's global generator, of which lucent's transforms draw, seeded inside the block only."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
