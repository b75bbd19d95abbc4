"""Dreams: pictures that make networks as sure of a class as can be, by lucent, for one network or many at once."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from saliency_lib.attribution.passes import check, device_of, hooked, logits
from saliency_lib.noisegrad import perturbed
from saliency_lib.progress import progress
from saliency_lib.randomness import MEMBERS, WEIGHTS, derive, seeded

with warnings.catch_warnings():  # kornia, which lucent needs, compiles functions in a way that torch will drop
    warnings.simplefilter("ignore", FutureWarning)
    from lucent.optvis import objectives, param, render, transform


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
    fresh: bool = True,
    param_f: Callable | None = None,
    transforms: list[Callable] | None = None,
    optimizer: Callable | None = None,
) -> Tensor:
    """A picture that maximises the mean over models of a logit, or of any lucent objective.

    Woerl et al. 2023, 4.4, for an ensemble; Bykov et al. 2022, Eq. 4, with ``sigma``. lucent's ``render_vis`` does the
    work (Olah et al. 2017); models are visited one after the other in each step, so memory does not grow with their
    number. Interrupted (Ctrl-C, or Jupyter's stop button) it gives the picture that it has.

    Parameters
    ----------
    models : sequence of Module
        In evaluation mode. One member gives what lucent gives for it.
    target : int or sequence of int
        Class whose logit is maximised, unless there is an ``objective``; of several, one picture each, which start from
        the same noise, see the same random changes, and are what each would be alone.
    size : int
        Side of the picture in pixels.
    mean, std : Tensor
        (c,), of the models' data, as ``ImageData.mean`` and ``.std``; one channel gives a grey picture.
    steps : int
        Of lucent's optimiser, Adam at a rate of 0.05.
    objective : str or callable, optional
        As in lucent: ``"layer3:7"`` for a channel, or one of ``lucent.optvis.objectives``. Layers are named as in
        lucent, dots replaced by underscores; ``"labels"`` is what the model returns, ``"input"`` the pictures.
    input_size : int, optional
        Side to which the picture is brought before a model sees it; default: ``size``. lucent's own is 224.
    subset : int, optional
        Models that are visited in each step, drawn anew; default: all.
    sigma, n_draws, fresh
        Noise on the weights as in :func:`saliency_lib.noisegrad.perturbed`, ``n_draws`` times per model and step;
        the same draws in every step if not ``fresh``.
    param_f, transforms, optimizer
        lucent's: how as many pictures as targets are parametrised (default: by their spectra, colours decorrelated),
        the random changes before every step, and a function from parameters to an optimiser.

    Returns
    -------
    Tensor
        (c, size, size), of several targets (n, c, size, size); float32 in [0, 1], on the CPU.

    Raises
    ------
    ValueError
        Without models, for one in training mode, a class that it lacks, or counts that are out of range.
    """
    models, targets = list(models), torch.as_tensor(target).flatten()
    blank = torch.zeros(len(targets), len(mean), *[input_size or size] * 2)
    _check_counts(models, targets, size, steps, subset, n_draws)
    for model in models:
        check(model, blank, targets) if objective else logits(model, blank, targets, batch_size=len(targets))
    if param_f is None:
        param_f = partial(_start, size, None if len(mean) == 3 else len(mean), len(targets))
    recorder, wanted = _Recorder(), objectives.as_objective(objective or _sum_of_logits(targets))
    with seeded(seed), _numpy_seeded(seed), progress(total=steps, description="dream") as bar:
        pictures = render.render_vis(
            recorder,
            _Mean(wanted, recorder, bar, _Visits(models, seed, subset, sigma, n_draws, fresh)),
            param_f,
            optimizer,
            _changes(transforms, mean, std, device_of(models[0], blank)),
            thresholds=(steps,),
            preprocess=False,
            progress=False,
            show_image=False,
            fixed_image_size=input_size or size,
        )
    found = torch.from_numpy(pictures[-1]).permute(0, 3, 1, 2).contiguous()
    return found if torch.as_tensor(target).ndim else found[0]


def views(pictures: Tensor, mean: Tensor, std: Tensor, input_size: int, n: int = 16, seed: int = 0) -> Tensor:
    """What models see of pictures while they dream: normalised inputs, (n, pictures, c, input_size, input_size).

    ``n`` draws of lucent's random changes, the same for all pictures.
    """
    brought = [*_changes(None, mean, std, "cpu"), nn.Upsample(input_size, mode="bilinear", align_corners=True)]
    with _numpy_seeded(seed):
        return torch.stack([transform.compose(brought)(pictures) for _ in range(n)])


def _changes(transforms: list[Callable] | None, mean: Tensor, std: Tensor, device) -> list[Callable]:
    mean, std = (torch.as_tensor(v, dtype=torch.float32, device=device).view(-1, 1, 1) for v in (mean, std))
    normalise = [lambda pictures: (pictures.to(device) - mean) / std]
    return [*(transform.standard_transforms if transforms is None else transforms), *normalise]


def _sum_of_logits(targets: Tensor) -> objectives.Objective:
    return sum(objectives.channel("labels", int(target), batch=i) for i, target in enumerate(targets))


def _start(size: int, channels: int | None, n: int) -> tuple[list[Tensor], Callable[[], Tensor]]:
    """lucent's parameters and pictures, n of them from the noise that one would have."""
    alone, _ = param.image(size, channels=channels)
    parameters, pictures = param.image(size, channels=channels, batch=n)
    with torch.no_grad():
        for together, own in zip(parameters, alone):
            together.copy_(own.expand_as(together))
    return parameters, pictures


def _check_counts(models: list, targets: Tensor, size: int, steps: int, subset: int | None, n_draws: int) -> None:
    if not models or not len(targets):
        raise ValueError(f"a dream needs at least one model and one target, not {len(models)} and {len(targets)}")
    if min(size, steps, n_draws) < 1:
        raise ValueError(f"size, steps and n_draws are at least 1, not {size}, {steps} and {n_draws}")
    if subset is not None and not 1 <= subset <= len(models):
        raise ValueError(f"a subset of {len(models)} models has 1 to {len(models)}, not {subset}")


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """NumPy's global generator, of which lucent's transforms draw, seeded inside the block only."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


class _Recorder(nn.Module):
    """Stands where lucent expects the model, and keeps what it would see."""

    seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return x

    def take(self) -> Tensor:
        """What this step's model would see, once."""
        if self.seen is None:
            raise ValueError("the transforms failed; lucent's warning says why")
        seen, self.seen = self.seen, None
        return seen


class _Visits:
    """The models of each step, one after the other, with noise on their weights while they are visited."""

    def __init__(self, models: list[nn.Module], seed: int, subset: int | None, sigma: float, n_draws: int, fresh: bool):
        self.models, self.seed, self.subset = models, seed, subset
        self.sigma, self.n_draws, self.fresh = sigma, n_draws if sigma else 1, fresh
        self.order = torch.Generator().manual_seed(derive(seed, MEMBERS))
        self.noise = self._generators()

    def _generators(self) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(derive(self.seed, WEIGHTS, k)) for k in range(len(self.models))]

    def visit(self, look: Callable[[nn.Module], None]) -> int:
        """``look(model)`` at each model of one step; the number of looks."""
        chosen = range(len(self.models))
        if self.subset is not None:
            chosen = torch.randperm(len(self.models), generator=self.order)[: self.subset].tolist()
        noise = self.noise if self.fresh else self._generators()
        for k in chosen:
            for _ in range(self.n_draws):
                with perturbed(self.models[k], self.sigma, noise[k]) if self.sigma else nullcontext():
                    look(self.models[k])
        return len(chosen) * self.n_draws


class _Mean:
    """What lucent minimises: the mean of an objective over visits, whose gradients are added up at the picture."""

    def __init__(self, objective: Callable, recorder: _Recorder, bar, visits: _Visits):
        self.objective, self.recorder, self.bar, self.visits = objective, recorder, bar, visits

    def __call__(self, hook: Callable) -> Tensor:
        whole = [self.recorder.take()]  # and the pictures before their random change, if the objective asks for them
        leaves, gradients, value = [whole[0].detach().requires_grad_()], [0.0, 0.0], torch.zeros(())

        def pictures() -> Tensor:
            if len(whole) == 1:
                whole.append(hook("input"))
                leaves.append(whole[1].detach().requires_grad_())
            return leaves[1]

        def look(model: nn.Module) -> None:
            nonlocal value
            with _activations(model, pictures) as activation:
                model(leaves[0])
                loss = self.objective(activation)
            if not loss.isfinite():
                raise ValueError(
                    f"the objective is {loss.item()} for {len(leaves[0])} pictures; look at the model's weights, and "
                    "whether param_f gives one picture per target"
                )
            value = value + loss.detach().cpu()
            for i, part in enumerate(torch.autograd.grad(loss, leaves, allow_unused=True)):
                if part is not None:
                    gradients[i] = gradients[i] + part

        n = self.visits.visit(look)
        self.bar.update()
        surrogate = sum((x * g).sum().cpu() for x, g in zip(whole, gradients)) / n  # has the mean's gradient
        return surrogate + (value / n - surrogate.detach())  # and its value


@contextmanager
def _activations(model: nn.Module, pictures: Callable[[], Tensor]) -> Iterator[Callable[[str], Tensor]]:
    """What lucent's objectives ask, by layer name, of the passes inside the block."""
    names = {module: name.replace(".", "_") or "labels" for name, module in model.named_modules()}
    found = {}

    def keep(module: nn.Module, _inputs, output) -> None:
        found[names[module]] = output

    def activation(layer: str) -> Tensor:
        if layer == "input":
            return pictures()
        if layer not in found:
            raise ValueError(f"no layer {layer!r} took part; one of input, {', '.join(found)}")
        return found[layer]

    with hooked(list(names), keep):
        yield activation
