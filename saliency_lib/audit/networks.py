"""Networks from checkpoints; what cannot be loaded is named and left out, and no code of a checkpoint is run."""

import glob
import importlib
import inspect
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import get_model, list_models

from saliency_lib.audit.checkpoints import content, differing, weights_for
from saliency_lib.audit.sentences import Problems
from saliency_lib.ensembles.files import digest
from saliency_lib.hooks import copied
from saliency_lib.inference import how_read, logits, of_output
from saliency_lib.noisegrad import choose_sigma, perturbed
from saliency_lib.runtime.seeds import WEIGHTS, derive, seeded

CHECKPOINTS = {".pt", ".pth", ".ckpt", ".bin", ".safetensors"}
USUAL_NOISE = 0.1
ONE_OUTPUT = "The networks have one output; the side of zero that it is on is explained, 0 below and 1 above."


def builder(model: str) -> Callable[..., nn.Module]:
    """A function that gives a network with fresh weights, by ``"package.module:factory"`` or the name of one of
    torchvision's classifiers; ValueError for a name that is none, or a factory that cannot be imported."""
    module, colon, name = model.partition(":")
    if not colon:
        if model not in list_models(torchvision.models):
            raise ValueError(f"torchvision has no classifier {model!r}; name one of its own, or package.module:factory")
        return partial(get_model, model, weights=None)
    given, sys.argv = sys.argv, [module]  # a module may read the command line, which is not its own
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        here = f"call from the folder that {module!r} lies in"
        raise ValueError(f"{model!r} cannot be imported ({error}); {here}") from error
    except SystemExit as error:
        raise ValueError(
            f"{module!r} ends the program when it is imported (status {error.code}); put what reads the command line "
            "under if __name__ == '__main__':"
        ) from error
    finally:
        sys.argv = given


def _loaded(build: Callable[..., nn.Module], path: Path) -> tuple[nn.Module, str]:
    """A network with a checkpoint's weights, and what is to be said of them; it gets as many classes as these have,
    where ``build`` takes ``num_classes``."""
    held, said = content(path), []
    with seeded(0):  # the first weights are replaced, but drawn
        model = build()
        if not model.state_dict():
            raise ValueError("the network that is built for it has no weights")
        if not (choices := weights_for(held, model)):
            raise ValueError(differing(held, model))
        state, own = choices[0].state, model.state_dict()
        last = next(reversed(own))  # weight or bias of the logits
        if len(state[last]) != len(own[last]) and "num_classes" in _options(build):
            model = build(num_classes=len(state[last]))
    own = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    if names := [name for name in own if own[name] != tuple(state[name].shape)]:
        example = f"{names[0]} is {tuple(state[names[0]].shape)} in place of {own[names[0]]}"
        raise ValueError(f"it is a checkpoint of another architecture: {len(names)} tensors differ, as {example}")
    if not all(t.isfinite().all() for t in state.values() if t.is_floating_point()):
        raise ValueError("it holds weights that are not finite")
    model.load_state_dict(state)
    if len(choices) > 1:
        said.append(f"its weights in {choices[0]} are taken, not those in {' or '.join(map(str, choices[1:]))}")
    if rest := [name for name in choices[0].rest if not any(c.prefix and name.startswith(c.prefix) for c in choices)]:
        said.append(f"{len(rest)} tensors that the network has not are ignored, as {rest[0]}")
    return model.eval(), "; ".join(said)


def _options(build: Callable[..., nn.Module]) -> set[str]:
    """Names of what a factory can be called with; torchvision's all take ``num_classes``."""
    if getattr(build, "func", None) is get_model:
        return {"num_classes"}
    try:
        return set(inspect.signature(build).parameters)
    except (TypeError, ValueError):
        return set()


def _files(patterns: str | Path | Sequence[str | Path], problems: Problems) -> list[Path]:
    """Files of names, globs or folders, sorted; a pattern without any becomes a problem."""
    files: set[Path] = set()
    for pattern in [patterns] if isinstance(patterns, (str, Path)) else patterns:
        name = os.path.expanduser(pattern)
        if os.path.isdir(name):
            found = [path for path in Path(name).rglob("*") if path.suffix in CHECKPOINTS]
        else:  # a name may hold brackets that mean nothing
            found = [Path(name)] if os.path.exists(name) else list(map(Path, glob.glob(name, recursive=True)))
        if not found:
            problems.append(f"no checkpoint matches {str(pattern)!r}; look at the folder, and quote patterns with *")
        files.update(path for path in found if path.is_file())
    return sorted(files)


class Networks(dict[str, nn.Module]):
    """Networks by the names of their checkpoints."""

    @property
    def names(self) -> list[str]:
        """Of the checkpoints, in order."""
        return list(self)


def load(
    build: Callable[..., nn.Module],
    checkpoints: str | Path | Sequence[str | Path],
    problems: Problems,
    device: str = "cpu",
) -> Networks:
    """Networks in eval mode by the names of their checkpoints: files, globs or folders; one ``build()`` each.

    A checkpoint may hold more than weights, and these under any prefix that all of the network's names have. A file
    that cannot be read, is of another architecture, holds values that are not finite, or the same weights as one before
    it, is left out and named in ``problems``. ValueError with all problems if none is left.
    """
    files = _files(checkpoints, problems)
    networks, seen = Networks(), {}
    root = os.path.commonpath([path.parent for path in files]) if files else ""
    for path in files:
        name = os.path.relpath(path, root)
        with problems.attempt(f"{name} is left out"):
            model, said = _loaded(build, path)
            if (same := seen.setdefault(digest(model.state_dict()), name)) != name:
                raise ValueError(f"it holds the same weights as {same}")
            networks[name] = model.to(device)
            if said:
                problems.remarks.append(f"{name}: {said}.")
    if not networks:
        raise ValueError("no network could be loaded: " + "; ".join(problems))
    return networks


def sides(z: Tensor) -> Tensor:
    """Outputs (n, 1) as logits (n, 2) of the side below zero and of that above, whose softmax is the sigmoid of z."""
    return torch.cat([-z / 2, z / 2], 1)


class TwoSided(nn.Module):
    """A network with one output as one with the logits of its two :func:`sides`."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (n, 2)."""
        return sides(of_output(self.model(x)))


def compatible(networks: dict[str, nn.Module], images: Tensor, problems: Problems) -> dict[str, nn.Module]:
    """Those of the networks that take the images, and have as many outputs as most of these; ValueError with all
    problems if none does.

    A network with one output becomes one with two sides, :class:`TwoSided`. What has to be said of how outputs are read
    is in the problems' remarks.
    """
    outputs, remarks = {}, set()
    for name, model in networks.items():
        with problems.attempt(f"{name} does not take pictures of {tuple(images.shape[1:])}"), torch.no_grad():
            given = model(images[:1].clone())
            found = of_output(given)
            if not isinstance(found, Tensor) or found.ndim != 2:
                raise ValueError(f"it gives {getattr(found, 'shape', type(found).__name__)}, not (1, classes)")
            outputs[name] = found.shape[1]
            if said := how_read(given):
                remarks.add(f"The networks give {said}.")
    if not outputs:
        raise ValueError("no network takes the pictures (size= sets theirs): " + "; ".join(problems))
    usual = statistics.mode(outputs.values())
    for name, classes in outputs.items():
        if classes != usual:
            problems.append(f"{name} is left out: it has {classes} outputs, the others {usual}")
    chosen: dict[str, nn.Module] = {name: networks[name] for name, classes in outputs.items() if classes == usual}
    if usual == 1:
        remarks.add(ONE_OUTPUT)
        chosen = {name: TwoSided(model).eval() for name, model in chosen.items()}
    problems.remarks += sorted(remarks)
    return chosen


def noisy_copies(
    model: nn.Module, images: Tensor, n: int, problems: Problems, seed: int = 0
) -> tuple[list[nn.Module], float]:
    """``n`` copies with NoiseGrad's noise on their weights, a stand-in for networks trained again, and its level.

    That is the level that changes a twentieth of the network's own predictions, above chance
    (:func:`saliency_lib.noisegrad.choose_sigma`); ``USUAL_NOISE``, and a problem, where it cannot be found.
    """
    sigma, copies, generator = USUAL_NOISE, [], torch.Generator().manual_seed(derive(seed, WEIGHTS))
    with problems.attempt(f"{sigma} is used for the noise on weights, since a level could not be chosen"):
        predicted = logits(model, images).argmax(1)
        sigma = choose_sigma(model, images, predicted, n_draws=5, n_steps=3, seed=seed).sigma.value
    for _ in range(n):
        with perturbed(model, sigma, generator):
            copies.append(copied(model))
    return copies, sigma
