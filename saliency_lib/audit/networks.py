"""Networks from checkpoints; what cannot be loaded is named and left out, and no code of a checkpoint is run."""

import copy
import glob
import importlib
import os
import pickle
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model, list_models

from saliency_lib.ensembles.members import digest
from saliency_lib.inference import logits
from saliency_lib.noisegrad import choose_sigma, perturbed
from saliency_lib.runtime.seeds import WEIGHTS, derive, seeded

WRAPPED = ("state_dict", "model_state_dict", "model")  # where training scripts put the weights in a checkpoint
PREFIXES = ("module.", "_orig_mod.", "model.")  # of DataParallel, torch.compile and Lightning
TORCHVISION_CLASSES = 1000


class Problems(list):
    """What an audit could not do, a sentence each."""

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Go on after an exception in the block; ``what`` and its first line become a problem."""
        try:
            yield
        except Exception as error:  # a user's network may raise anything
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self.append(f"{what}: {reason}")


@dataclass
class Loaded:
    """Networks in eval mode with the file names that they came from."""

    names: list[str] = field(default_factory=list)
    networks: list[nn.Module] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.networks)


@dataclass(frozen=True)
class Torchvision:
    """A builder of one of torchvision's classifiers, without its weights."""

    name: str

    def __call__(self, num_classes: int = TORCHVISION_CLASSES) -> nn.Module:
        return get_model(self.name, weights=None, num_classes=num_classes)


def builder(model: str) -> Callable[..., nn.Module]:
    """A function that gives a network with fresh weights, from ``"package.module:factory"`` or a torchvision name.

    Raises
    ------
    ValueError
        For a name that is none of torchvision's classifiers, or a factory that cannot be imported.
    """
    module, colon, name = model.partition(":")
    if not colon:
        if model not in list_models(torchvision.models):
            raise ValueError(f"torchvision has no classifier {model!r}; name one of its own, or package.module:factory")
        return Torchvision(model)
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{model!r} cannot be imported ({error}); call from the folder that {module!r} lies in"
        ) from error


def weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a ``.safetensors`` file, or in one of ``torch.save`` read with ``weights_only=True``.

    Raises
    ------
    ValueError
        For a file that is neither, is broken, or holds more than weights.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of protocols; whatever is no state dict is refused
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path.name} cannot be read as weights alone ({first}); save its state_dict") from error
    for key in WRAPPED:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()) or not found:
        raise ValueError(f"{path.name} holds no state dict; save model.state_dict()")
    return found


def _unwrapped(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The state without a wrapper's prefix that all of its names have and none of the model's."""
    own = model.state_dict()
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state) and not any(name.startswith(prefix) for name in own):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _fitted(build: Callable[..., nn.Module], model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """The model, but torchvision's with as many classes as the state has."""
    if not isinstance(build, Torchvision):
        return model
    own = model.state_dict()
    rows = {
        len(state[name]) for name, tensor in own.items()
        if name in state and tensor.shape != state[name].shape and tensor.shape[:1] == (TORCHVISION_CLASSES,)
        and tensor.shape[1:] == state[name].shape[1:]
    }  # fmt: skip
    return build(num_classes=rows.pop()) if len(rows) == 1 else model


def _difference(model: nn.Module, state: dict[str, Tensor]) -> str:
    """How a state differs from what a model wants, in a few words; empty if it does not."""
    own = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    missing, unknown = [n for n in own if n not in state], [n for n in state if n not in own]
    other = [n for n in own if n in state and own[n] != tuple(state[n].shape)]
    words = []
    if missing:
        words.append(f"{len(missing)} of {len(own)} tensors are missing, as {missing[0]}")
    if unknown:
        words.append(f"{len(unknown)} are unknown, as {unknown[0]}")
    if other:
        words.append(f"{other[0]} is {tuple(state[other[0]].shape)} in place of {own[other[0]]}")
    return "; ".join(words)


def matching(pattern: str, problems: Problems) -> list[Path]:
    """Files that match a glob, by name; none at all is a problem."""
    files = [Path(name) for name in sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))]
    if not files:
        problems.append(f"no file matches {pattern!r}; quote the pattern and check the folder")
    return files


def _names(files: Sequence[Path]) -> list[str]:
    """The files' names, from the folder down that all of them are in."""
    root = os.path.commonpath([path.parent for path in files]) if files else ""
    return [os.path.relpath(path, root) for path in files]


def load(build: Callable[..., nn.Module], files: Sequence[Path], problems: Problems, device: str = "cpu") -> Loaded:
    """Networks of checkpoints, one of ``build()`` each.

    A file that cannot be read, is of another architecture, holds values that are not finite, or the same weights as one
    before it, is left out and named in ``problems``.

    Raises
    ------
    ValueError
        If none is left; the message gives all problems.
    """
    loaded, seen = Loaded(), {}
    for name, path in zip(_names(files), files):
        with problems.attempt(f"{name} is left out"):
            with seeded(0):  # its first weights are replaced, but drawn
                model = build()
                state = _unwrapped(weights(path), model)
                model = _fitted(build, model, state)
            if difference := _difference(model, state):
                raise ValueError(f"it is a checkpoint of another architecture: {difference}")
            if not all(t.isfinite().all() for t in state.values() if t.is_floating_point()):
                raise ValueError("it holds weights that are not finite")
            if (same := seen.setdefault(digest(state), name)) != name:
                raise ValueError(f"it holds the same weights as {same}")
            model.load_state_dict(state)
            loaded.names.append(name)
            loaded.networks.append(model.to(device).eval())
    if not loaded.networks:
        raise ValueError("no network could be loaded: " + "; ".join(problems))
    return loaded


def taking(loaded: Loaded, images: Tensor, problems: Problems) -> Loaded:
    """Those of the networks that take the pictures, and have as many outputs as most of these.

    Raises
    ------
    ValueError
        With all problems, if none does.
    """
    outputs: dict[str, tuple[int, nn.Module]] = {}
    for name, model in zip(loaded.names, loaded.networks):
        with problems.attempt(f"{name} does not take pictures of {tuple(images.shape[1:])}"), torch.no_grad():
            found = model(images[:1])
            if not isinstance(found, Tensor) or found.ndim != 2:
                raise ValueError(f"it gives {getattr(found, 'shape', type(found).__name__)}, not (1, classes)")
            outputs[name] = found.shape[1], model
    if not outputs:
        raise ValueError("no network takes the pictures (size= sets theirs): " + "; ".join(problems))
    usual, _ = Counter(classes for classes, _ in outputs.values()).most_common(1)[0]
    for name, (classes, _) in outputs.items():
        if classes != usual:
            problems.append(f"{name} is left out: it has {classes} outputs, the others {usual}")
    fit = {name: model for name, (classes, model) in outputs.items() if classes == usual}
    return Loaded(list(fit), list(fit.values()))


def noise_level(model: nn.Module, images: Tensor, problems: Problems, seed: int = 0, usual: float = 0.1) -> float:
    """The noise on the weights that changes a twentieth of the network's own predictions, above chance
    (:func:`saliency_lib.noisegrad.choose_sigma`); ``usual``, and a problem, where it cannot be found."""
    with problems.attempt(f"{usual} is used for the noise on weights, since a level could not be chosen"):
        return choose_sigma(model, images, predictions(model, images), n_draws=5, n_steps=3, seed=seed).sigma.value
    return usual


def predictions(model: nn.Module, images: Tensor) -> Tensor:
    """Classes that a network predicts, (n,) int64."""
    return logits(model, images).argmax(1)


def shaken(model: nn.Module, sigma: float, n: int, seed: int) -> list[nn.Module]:
    """Copies with noise on their weights (NoiseGrad's, multiplicative): a stand-in for networks trained again."""
    copies, generator = [], torch.Generator().manual_seed(derive(seed, WEIGHTS))
    for _ in range(n):
        with perturbed(model, sigma, generator):
            copies.append(copy.deepcopy(model))
    return copies
