"""Dreams: pictures that make networks as sure of a class as can be, by lucent, for one network or many at once."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

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
    target: int,
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
    target : int
        Class whose logit is maximised, unless there is an ``objective``.
    size : int
        Side of the picture in pixels.
    mean, std : Tensor
        (c,), of the models' data, as ``ImageData.mean`` and ``.std``; one channel gives a grey picture.
    steps : int
        Of lucent's optimiser, Adam at a rate of 0.05.
    objective : str or callable, optional
        As in lucent: ``"layer3:7"`` for a channel, or one of ``lucent.optvis.objectives``. Layers are named as in
        lucent, dots replaced by underscores; ``"labels"`` is what the model returns, ``"input"`` the picture.
    input_size : int, optional
        Side to which the picture is brought before a model sees it; default: ``size``. lucent's own is 224.
    subset : int, optional
        Models that are visited in each step, drawn anew; default: all.
    sigma, n_draws, fresh
        Noise on the weights as in :func:`saliency_lib.noisegrad.perturbed`, ``n_draws`` times per model and step;
        the same draws in every step if not ``fresh``.
    param_f, transforms, optimizer
        lucent's: how the picture is parametrised (default: by its spectrum, colours decorrelated), the random changes
        before every step, and a function from parameters to an optimiser.

    Returns
    -------
    Tensor
        (c, size, size) float32 in [0, 1], on the CPU.

    Raises
    ------
    ValueError
        Without models, for one in training mode, a class that it lacks, or counts that are out of range.
    """
    models, view = list(models), torch.zeros(1, len(mean), *[input_size or size] * 2)
    _check_counts(models, size, steps, subset, n_draws)
    for model in models:
        of_class = torch.tensor([target])
        check(model, view, of_class) if objective else logits(model, view, of_class, batch_size=1)
    recorder, device = _Recorder(), device_of(models[0], view)
    mean, std = (torch.as_tensor(v, dtype=torch.float32, device=device).view(-1, 1, 1) for v in (mean, std))
    changes = list(transform.standard_transforms if transforms is None else transforms)
    wanted = objectives.as_objective(objective or objectives.channel("labels", target))
    with seeded(seed), _numpy_seeded(seed), progress(total=steps, description="dream") as bar:
        pictures = render.render_vis(
            recorder,
            _Mean(wanted, recorder, bar, _Visits(models, seed, subset, sigma, n_draws, fresh)),
            param_f or (lambda: param.image(size, channels=None if len(mean) == 3 else len(mean))),
            optimizer,
            [*changes, lambda picture: (picture.to(device) - mean) / std],
            thresholds=(steps,),
            preprocess=False,
            progress=False,
            show_image=False,
            fixed_image_size=input_size or size,
        )
    return torch.from_numpy(pictures[-1][0]).permute(2, 0, 1).contiguous()


def _check_counts(models: list, size: int, steps: int, subset: int | None, n_draws: int) -> None:
    if not models:
        raise ValueError("a dream needs at least one model")
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
        whole = [self.recorder.take(), hook("input")]
        leaves = [x.detach().requires_grad_() for x in whole]
        gradients, value = [torch.zeros_like(x) for x in leaves], torch.zeros(())

        def look(model: nn.Module) -> None:
            nonlocal value
            with _activations(model, leaves[1]) as activation:
                model(leaves[0])
                loss = self.objective(activation)
            value = value + loss.detach().cpu()
            for total, part in zip(gradients, torch.autograd.grad(loss, leaves, allow_unused=True)):
                if part is not None:
                    total += part

        n = self.visits.visit(look)
        self.bar.update()
        surrogate = sum((x * g).sum().cpu() for x, g in zip(whole, gradients)) / n  # has the mean's gradient
        return surrogate + (value / n - surrogate.detach())  # and its value


@contextmanager
def _activations(model: nn.Module, picture: Tensor) -> Iterator[Callable[[str], Tensor]]:
    """What lucent's objectives ask, by layer name, of the passes inside the block."""
    names = {module: name.replace(".", "_") or "labels" for name, module in model.named_modules()}
    found = {"input": picture}

    def keep(module: nn.Module, _inputs, output) -> None:
        found[names[module]] = output

    def activation(layer: str) -> Tensor:
        if layer not in found:
            raise ValueError(f"no layer {layer!r} took part; one of {', '.join(found)}")
        return found[layer]

    with hooked(list(names), keep):
        yield activation
