"""Networks by name: a factory of one's own, torchvision's and timm's classifiers, a folder saved by transformers."""

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models import get_model, get_model_weights, list_models

from saliency_lib.audit import saved
from saliency_lib.audit.checkpoints import content

CLASSES = ("num_classes", "n_classes", "num_labels", "classes")  # what factories call their number
WAYS = "a name of torchvision's, timm:NAME, hf:FOLDER or package.module:factory"


@dataclass(frozen=True)
class Builder:
    """How a network is made, and what pictures it is made for, where that is known.

    Attributes
    ----------
    make : callable
        Gives a network with fresh weights.
    classes : str, optional
        The option of ``make`` for the number of classes.
    size : tuple of int, optional
        (height, width) of pictures.
    mean, std : sequence of float, optional
        Of each channel's pixels in [0, 1].
    source : str
        Whose size, mean and std these are.
    weights : Path, optional
        Where weights lie that belong to it.
    read : callable
        What a checkpoint's file holds, without running code of it.
    """

    make: Callable[..., nn.Module]
    classes: str | None = None
    size: tuple[int, int] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    source: str = ""
    weights: Path | None = None
    read: Callable[[Path], Any] = field(default_factory=lambda: content)  # a plain default is documented twice

    def __call__(self, classes: int | None = None) -> nn.Module:
        """A network with fresh weights, of so many classes where it can be asked for them."""
        return self.make() if classes is None or self.classes is None else self.make(**{self.classes: classes})


def builder(model: str) -> Builder:
    """How to make a network of that name.

    Parameters
    ----------
    model : str
        The name of one of torchvision's classifiers; ``"timm:NAME"``; ``"hf:FOLDER"``, which ``save_pretrained`` of
        transformers has written, and of which no code is run; or ``"package.module:factory"``. Nothing is downloaded.

    Raises
    ------
    ValueError
        For a name that is none, a package that is not installed, or a factory that cannot be imported.
    """
    kind, colon, name = model.partition(":")
    if not colon:
        return _of_torchvision(model)
    if kind == "timm":
        return _of_timm(name)
    if kind == "hf":
        return _of_folder(name)
    return of_factory(_imported(kind, name))


def of_factory(factory: Callable[..., nn.Module]) -> Builder:
    """A factory that is called without arguments, or with its option for the number of classes, if it has one."""
    try:
        options = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return Builder(factory)
    return Builder(factory, next((word for word in CLASSES if word in options), None))


def _imported(module: str, name: str) -> Callable[..., nn.Module]:
    given, sys.argv = sys.argv, [module]  # a module may read the command line, which is not its own
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        here = f"call from the folder that {module!r} lies in"
        raise ValueError(f"'{module}:{name}' cannot be imported ({error}); {here}") from error
    except SystemExit as error:
        raise ValueError(
            f"{module!r} ends the program when it is imported (status {error.code}); put what reads the command line "
            "under if __name__ == '__main__':"
        ) from error
    finally:
        sys.argv = given


def _unknown(whose: str, name: str, names: list[str]) -> ValueError:
    near = get_close_matches(name, names, 3, 0.7)
    like = f" (near it: {', '.join(near)})" if near else ""
    return ValueError(f"{whose} has no classifier {name!r}{like}; a model is {WAYS}")


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"{name} is not installed; pip install '.[zoo]' in the project's folder brings it") from error


def _of_torchvision(name: str) -> Builder:
    names = list_models(torchvision.models)
    if name not in names:
        raise _unknown("torchvision", name, names)
    weights = [one.transforms() for one in get_model_weights(name)]
    made_for = min(weights, key=lambda w: w.crop_size)  # some are of a fine-tuning at a size that it does not take
    (side,) = made_for.crop_size
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}  # what a checkpoint replaces
    make = partial(get_model, name, weights=None, **options)
    return Builder(make, "num_classes", (side, side), made_for.mean, made_for.std, "torchvision's")


def _of_timm(name: str) -> Builder:
    timm: Any = _package("timm")
    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    try:
        known = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise ValueError(f"timm: {error}") from error
    config = timm.data.resolve_data_config(pretrained_cfg=known.to_dict() if known else {})
    make = partial(timm.create_model, name, pretrained=False)
    return Builder(make, "num_classes", config["input_size"][1:], config["mean"], config["std"], "timm's")


def _of_folder(name: str) -> Builder:
    """The classifier that a folder's config describes, with the size, mean and std of its processor."""
    transformers, folder = _package("transformers"), Path(name).expanduser()
    if not (folder / saved.CONFIG).is_file():
        raise ValueError(f"{name!r} holds no {saved.CONFIG}; hf: names a folder that save_pretrained has written")
    make = partial(saved.make, transformers, folder)
    try:
        with torch.device("meta"):
            make()
    except Exception as error:  # of another library, on what others wrote
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"no image classifier can be made of {name!r}: {reason}") from error
    read = partial(saved.read, transformers)
    return Builder(make, "num_labels", *saved.processing(folder), "the folder's", folder, read)
