"""Networks from checkpoints; what cannot be loaded is named and left out, and no code of a checkpoint is run."""

import copy
import glob
import importlib
import os
import pickle
import statistics
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model, list_models

from saliency_lib.audit.sentences import Problems
from saliency_lib.ensembles.files import digest
from saliency_lib.inference import logits
from saliency_lib.noisegrad import choose_sigma, perturbed
from saliency_lib.runtime.seeds import WEIGHTS, derive, seeded

WRAPPED = ("state_dict", "model_state_dict", "model")  # where training scripts put the weights in a checkpoint
PREFIXES = ("module.", "_orig_mod.", "model.")  # of DataParallel, torch.compile and Lightning
UNREADABLE = (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError)
USUAL_NOISE = 0.1


def builder(model: str) -> Callable[..., nn.Module]:
    """A function that gives a network with fresh weights, by ``"package.module:factory"`` or the name of one of
    torchvision's classifiers; ValueError for a name that is none, or a factory that cannot be imported."""
    module, colon, name = model.partition(":")
    if not colon:
        if model not in list_models(torchvision.models):
            raise ValueError(f"torchvision has no classifier {model!r}; name one of its own, or package.module:factory")
        return partial(get_model, model, weights=None)
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        here = f"call from the folder that {module!r} lies in"
        raise ValueError(f"{model!r} cannot be imported ({error}); {here}") from error


def weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a ``.safetensors`` file, or in one of ``torch.save`` read with ``weights_only=True``;
    ValueError for a file that is neither, is broken, or holds more than weights."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of protocols; whatever is no state dict is refused
            found = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise ValueError("it cannot be read as weights alone, is broken or holds more; save its state_dict") from error
    for key in WRAPPED:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()) or not found:
        raise ValueError("it holds no state dict; save model.state_dict()")
    return found


def _unwrapped(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The state without a wrapper's prefix that all of its names have and none of the model's."""
    own = model.state_dict()
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state) and not any(name.startswith(prefix) for name in own):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _loaded(build: Callable[..., nn.Module], path: Path) -> nn.Module:
    """A network with a checkpoint's weights; one of torchvision's gets as many classes as these have."""
    with seeded(0):  # the first weights are replaced, but drawn
        model = build()
        state, own = _unwrapped(weights(path), model), model.state_dict()
        last = next(reversed(own))  # of torchvision's, weight or bias of the logits
        if getattr(build, "func", None) is get_model and last in state and len(state[last]) != len(own[last]):
            model = build(num_classes=len(state[last]))
    wanted, found = ({name: tuple(t.shape) for name, t in tensors.items()} for tensors in (model.state_dict(), state))
    if differing := [name for name in wanted | found if wanted.get(name) != found.get(name)]:
        example = f"{differing[0]} is {found.get(differing[0])} in place of {wanted.get(differing[0])}"
        raise ValueError(f"it is a checkpoint of another architecture: {len(differing)} tensors differ, as {example}")
    if not all(t.isfinite().all() for t in state.values() if t.is_floating_point()):
        raise ValueError("it holds weights that are not finite")
    model.load_state_dict(state)
    return model.eval()


def load(
    build: Callable[..., nn.Module], pattern: str, problems: Problems, device: str = "cpu"
) -> dict[str, nn.Module]:
    """Networks in eval mode by the names of their checkpoints, files that match a glob; one ``build()`` each.

    A file that cannot be read, is of another architecture, holds values that are not finite, or the same weights as one
    before it, is left out and named in ``problems``. ValueError with all problems if none is left.
    """
    files = [Path(name) for name in sorted(glob.glob(os.path.expanduser(pattern), recursive=True))]
    if not files:
        problems.append(f"no file matches {pattern!r}; quote the pattern and check the folder")
    networks, seen = {}, {}
    root = os.path.commonpath([path.parent for path in files]) if files else ""
    for path in files:
        name = os.path.relpath(path, root)
        with problems.attempt(f"{name} is left out"):
            model = _loaded(build, path)
            if (same := seen.setdefault(digest(model.state_dict()), name)) != name:
                raise ValueError(f"it holds the same weights as {same}")
            networks[name] = model.to(device)
    if not networks:
        raise ValueError("no network could be loaded: " + "; ".join(problems))
    return networks


def compatible(networks: dict[str, nn.Module], images: Tensor, problems: Problems) -> dict[str, nn.Module]:
    """Those of the networks that take the images, and have as many outputs as most of these; ValueError with all
    problems if none does."""
    outputs = {}
    for name, model in networks.items():
        with problems.attempt(f"{name} does not take pictures of {tuple(images.shape[1:])}"), torch.no_grad():
            found = model(images[:1])
            if not isinstance(found, Tensor) or found.ndim != 2:
                raise ValueError(f"it gives {getattr(found, 'shape', type(found).__name__)}, not (1, classes)")
            outputs[name] = found.shape[1]
    if not outputs:
        raise ValueError("no network takes the pictures (size= sets theirs): " + "; ".join(problems))
    usual = statistics.mode(outputs.values())
    for name, classes in outputs.items():
        if classes != usual:
            problems.append(f"{name} is left out: it has {classes} outputs, the others {usual}")
    return {name: networks[name] for name, classes in outputs.items() if classes == usual}


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
            copies.append(copy.deepcopy(model))
    return copies, sigma
