"""``dream``: lucent's feature visualisation for one network or many."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from saliency_lib.dreams.interrupts import held
from saliency_lib.dreams.quietly import objectives, param, render, transform
from saliency_lib.dreams.visits import Mean, Recorder, Visits
from saliency_lib.hooks import device_of
from saliency_lib.inference import check, scores
from saliency_lib.runtime.progress import progress
from saliency_lib.runtime.seeds import seeded


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
        the same noise, see the same random changes, and are what each would be alone (if no transform of yours draws
        from PyTorch).
    size : int
        Side of the picture in pixels.
    mean, std : Tensor
        (c,), of the models' data, as ``ImageData.mean`` and ``.std``; one channel gives a grey picture.
    steps : int
        Of lucent's optimiser, Adam at a rate of 0.05.
    objective : str or callable, optional
        As in lucent: ``"layer3:7"`` for a channel, or one of ``lucent.optvis.objectives``. Layers are named as in
        lucent, dots replaced by underscores; ``"labels"`` is what the model returns, ``"input"`` the pictures. It sees
        the pictures of all targets; ``"layer3:7"`` is their mean.
    input_size : int, optional
        Side to which the picture is brought before a model sees it; default: ``size``. lucent's own is 224.
    subset : int, optional
        Models that are visited in each step, drawn anew; default: all. (A step is one look at the objective.)
    sigma, n_draws, fresh
        Noise on the weights as in :func:`saliency_lib.noisegrad.perturbed`, ``n_draws`` times per model and step;
        the same draws in every step if not ``fresh``.
    param_f, transforms, optimizer
        lucent's: how as many pictures as targets are parametrised (default: by their spectra, colours decorrelated,
        (size, size) in [0, 1]), the random changes before every step, and a function from parameters to an optimiser.

    Returns
    -------
    Tensor
        (c, size, size), of a sequence of targets (n, c, size, size); float32, on the CPU.

    Raises
    ------
    ValueError
        Without models, for one in training mode, a class or layer that it lacks, or numbers that are out of range.
    """
    models, targets = _models(models), torch.as_tensor(target).flatten()
    input_size = size if input_size is None else input_size
    _check(models, targets, mean, std, min(size, input_size, steps, n_draws), subset, objective)
    blank = torch.zeros(len(targets), len(mean), input_size, input_size)
    for model in models:
        if objective is None:
            scores(model, blank, targets, batch_size=len(targets))
        else:
            check(model, blank, targets)
    if param_f is None:
        param_f = partial(_start, size, None if len(mean) == 3 else len(mean), len(targets))
    wanted = objectives.as_objective(_sum_of_logits(targets) if objective is None else objective)
    recorder, visits = Recorder(), Visits(models, seed, subset, sigma, n_draws, fresh)
    with seeded(seed), _numpy_seeded(seed), progress(total=steps, description="dream") as bar, held() as stop_if_asked:
        pictures = render.render_vis(
            recorder,
            Mean(wanted, recorder, visits, len(targets), bar, stop_if_asked),
            param_f,
            optimizer,
            _changes(transforms, mean, std, device_of(models[0], blank)),
            thresholds=(steps,),
            preprocess=False,
            progress=False,
            show_image=False,
            fixed_image_size=input_size,
        )
    found = torch.from_numpy(pictures[-1]).permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)
    return found if torch.as_tensor(target).ndim else found[0]


def views(
    pictures: Tensor,
    mean: Tensor,
    std: Tensor,
    input_size: int,
    n: int = 16,
    seed: int = 0,
    transforms: list[Callable] | None = None,
) -> Tensor:
    """What models see of pictures (pictures, c, h, w) in [0, 1] while they dream: normalised inputs on the CPU,
    (n, pictures, c, input_size, input_size).

    ``n`` draws of the random changes (default: lucent's), the same for all pictures.
    """
    if pictures.ndim != 4:
        raise ValueError(f"expected pictures (n, c, h, w), not {tuple(pictures.shape)}; picture[None] makes one of one")
    see = transform.compose(_changes(transforms, mean, std, "cpu"))
    with _numpy_seeded(seed):
        seen = [see(pictures) for _ in range(n)]
    bring = nn.Upsample(input_size, mode="bilinear", align_corners=True)  # as lucent does
    return torch.stack([bring(x) for x in seen])


def _changes(transforms: list[Callable] | None, mean: Tensor, std: Tensor, device) -> list[Callable]:
    """Random changes where lucent has its tensors, then normalisation where the models are."""
    mean, std = (torch.as_tensor(v, dtype=torch.float32, device=device).view(-1, 1, 1) for v in (mean, std))
    changed = transform.compose(transform.standard_transforms if transforms is None else transforms)

    def change(pictures: Tensor) -> Tensor:
        try:
            return (changed(pictures.to(transform.device)).to(device) - mean) / std
        except RuntimeError as error:  # which lucent would take for a picture that is too small
            raise ValueError(f"the transforms failed: {error}") from error

    return [change]


def _sum_of_logits(targets: Tensor) -> objectives.Objective:
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


def _models(models: Sequence[nn.Module]) -> list[nn.Module]:
    if isinstance(models, nn.Module):
        raise ValueError(f"models are a list; for one write [{type(models).__name__.lower()}]")
    return list(models)


def _check(models: list, targets: Tensor, mean, std, least: int, subset: int | None, objective) -> None:
    """Raise ValueError for what does not go together; ``least`` is the smallest of all sizes and counts."""
    if not models or not len(targets):
        raise ValueError(f"a dream needs at least one model and one target, not {len(models)} and {len(targets)}")
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
