"""Networks from checkpoints; what cannot be loaded is named and left out, and no code of a checkpoint is run."""

import glob
import os
import statistics
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor, nn

from saliency_lib.audit.checkpoints import differing, other_classes, said_of, tensors_of, weights_for
from saliency_lib.audit.problems import Problems
from saliency_lib.audit.saved import is_saved
from saliency_lib.audit.zoo import Builder, of_factory
from saliency_lib.ensembles.files import digest
from saliency_lib.hooks import copied, sharing, uncompiled
from saliency_lib.inference import logits
from saliency_lib.noisegrad import choose_sigma, perturbed
from saliency_lib.outputs import how_read, of_output
from saliency_lib.runtime.seeds import WEIGHTS, derive, seeded

CHECKPOINTS = {".pt", ".pth", ".tar", ".ckpt", ".bin", ".safetensors"}  # model_best.pth.tar
USUAL_NOISE = 0.1
RELATED = 0.9  # correlation of weights; independent trainings of small networks have .01 to .05, snapshots .97 and more
PROBABILITIES = (
    "The outputs look like probabilities, not logits: audit the networks without their last sigmoid or softmax, since "
    "maps here are of logits, and one output is split at zero."
)
ONE_OUTPUT = "The networks have one output; the side of zero that it is on is explained, 0 below and 1 above."


def _loaded(build: Builder, path: Path) -> tuple[nn.Module, str]:
    """A network with a checkpoint's weights, and what is to be said of them; it gets as many classes as these have."""
    with seeded(0):  # the first weights are replaced, but drawn
        held, model = build.read(path), uncompiled(build())
        if not tensors_of(model):
            raise ValueError("the network that is built for it has no weights")
        if not (choices := weights_for(held, model)):
            raise ValueError(differing(held, model))
        state = choices[0].state
        if classes := other_classes(state, model):
            model = build(classes)
            state = weights_for(held, model)[0].state
    own = tensors_of(model)
    if any(state[name].shape != tensor.shape for name, tensor in own.items()):
        raise ValueError(differing(state, model))
    if names := [n for n, tensor in own.items() if tensor.is_floating_point() and not state[n].is_floating_point()]:
        raise ValueError(f"{names[0]} is {state[names[0]].dtype}, as of a quantised network; save it in floating point")
    if not all(t.isfinite().all() for t in state.values() if t.is_floating_point()):
        raise ValueError("it holds weights that are not finite")
    more = [name for name in model.state_dict() if name not in own]
    model.load_state_dict(state, strict=not more)
    kept = f"{more[0]}, which is no tensor, stays as the network is built" if more else ""
    return model.eval(), "; ".join(filter(None, (said_of(choices), kept)))


def _files(patterns: str | Path | Sequence[str | Path], problems: Problems) -> list[Path]:
    """Files of names, globs or folders, sorted; a pattern without any becomes a problem."""
    files: set[Path] = set()
    for pattern in [patterns] if isinstance(patterns, (str, Path)) else patterns:
        name = os.path.abspath(os.path.expanduser(pattern))  # which may hold brackets that mean nothing
        named = [Path(name)] if os.path.exists(name) else list(map(Path, glob.glob(name, recursive=True)))
        found = [file for path in named for file in (_within(path) if path.is_dir() else [path])]
        if not found:
            problems.append(f"no checkpoint matches {str(pattern)!r}; look at the folder, and quote patterns with *")
        files.update(found)
    return sorted(files)


def _within(folder: Path) -> list[Path]:
    """A folder's checkpoints; where transformers has saved a network, its weights without the trainer's state."""
    paths = map(Path, glob.iglob(f"{glob.escape(str(folder))}/**", recursive=True))  # also in folders that are links
    found = [path for path in paths if path.suffix in CHECKPOINTS and path.is_file()]
    theirs = {path.parent for path in found if is_saved(path)}
    return [path for path in found if path.parent not in theirs or is_saved(path)]


def load(
    build: Builder | Callable[..., nn.Module],
    checkpoints: str | Path | Sequence[str | Path],
    problems: Problems,
    device: str = "cpu",
) -> dict[str, nn.Module]:
    """Networks in eval mode by the names of their checkpoints: files, globs or folders; one ``build()`` each, of
    as many classes as the weights have, where it can be asked for them.

    A checkpoint may hold more than weights, and these under any prefix that all of the network's names have. A file
    that cannot be read, is of another architecture, holds values that are not finite, or the same weights as one before
    it, is left out and named in ``problems``. ValueError with all problems if none is left, and for networks that share
    weights, of a factory that does not build a new one at every call.
    """
    files, build = _files(checkpoints, problems), build if isinstance(build, Builder) else of_factory(build)
    networks, seen, remarks, digests = {}, {}, {}, {}
    root = os.path.commonpath([path.parent for path in files]) if files else ""
    for path in files:
        name = os.path.relpath(path, root)
        with problems.attempt(f"{name} is left out"):
            model, said = _loaded(build, path)
            digests[name] = digest(tensors_of(model))
            if (same := seen.setdefault(digests[name], name)) != name:
                raise ValueError(f"it holds the same weights as {same}")
            networks[name] = model.to(device)
            remarks.setdefault(said, []).append(name)
    if not networks:
        raise ValueError("no network could be loaded: " + "; ".join(problems))
    if any(digest(tensors_of(model)) != digests[name] for name, model in networks.items()):
        raise ValueError(
            "the factory gives the same network, or parts of it, at every call, so that the last checkpoint's weights "
            "are in all of them; it has to build a new network each time"
        )
    if any(getattr(model, "transform_input", None) is False for model in networks.values()):
        problems.remarks.append(
            "The networks take pictures as they are (transform_input=False); if torchvision's own weights were their "
            "start, give a factory that builds them with transform_input=True."
        )
    problems.remarks += [f"{', '.join(names)}: {said}." for said, names in remarks.items() if said]
    if near := _relatives(networks):
        problems.append(
            f"{' and '.join(near)} have nearly the same weights: copies, snapshots of one training or fine-tunings of "
            "one network say little of what another training would give"
        )
    return networks


def _relatives(networks: dict[str, nn.Module]) -> list[str]:
    """Names of networks whose weights, biases left aside, correlate with another's: those of other trainings do not."""
    weights = [[p.detach() for p in model.parameters() if p.ndim > 1] for model in networks.values()]
    sizes = [sum((p.double().square().sum() for p in of), torch.tensor(0.0)).sqrt() for of in weights]
    near = set()
    for (i, a), (j, b) in combinations(enumerate(weights), 2):
        together = sum((p * q).sum(dtype=torch.float64) for p, q in zip(a, b) if p.shape == q.shape)
        near |= {i, j} if together > RELATED * sizes[i] * sizes[j] else set()
    return [name for k, name in enumerate(networks) if k in near]


def sides(z: Tensor) -> Tensor:
    """Outputs (n, 1) as logits (n, 2) of the side below zero and of that above, whose softmax is the sigmoid of z."""
    return torch.cat([-z / 2, z / 2], 1)


def two_sided(model: nn.Module) -> nn.Module:
    """A network with one output as one with the logits, (n, 2), of its two :func:`sides`: a copy on the same weights,
    of the same class but for its ``forward``, so that all names in it stay."""
    if "forward" in vars(model):
        raise ValueError(
            f"the forward of {type(model).__name__} is set from outside, as accelerate does; pass the network itself"
        )
    made, kind = sharing(model), type(model)
    made.__class__ = type(kind.__name__, (kind,), {"forward": lambda self, x: sides(of_output(kind.forward(self, x)))})
    return made


def _like_probabilities(outputs: Tensor) -> bool:
    """Whether outputs (n, classes) of several pictures may be probabilities: in [0, 1], of several classes adding up
    to 1, as themselves or as logarithms."""
    if len(outputs) < 2:
        return False
    if outputs.shape[1] == 1:
        return bool(((outputs >= 0) & (outputs <= 1)).all())
    ways = outputs, outputs.exp()
    return any(bool((p >= 0).all()) and torch.allclose(p.sum(1), p.new_ones(len(p)), atol=1e-3) for p in ways)


def compatible(networks: dict[str, nn.Module], images: Tensor, problems: Problems) -> dict[str, nn.Module]:
    """Those of the networks that take the images, and have as many outputs as most of these; ValueError with all
    problems if none does.

    A network with one output becomes one with two sides, :func:`two_sided`. What has to be said of how outputs are read
    is in the problems' remarks.
    """
    outputs, remarks = {}, set()
    for name, model in networks.items():
        with problems.attempt(f"{name} does not take pictures of {tuple(images.shape[1:])}"), torch.no_grad():
            given = model(images[:1].clone())
            found = of_output(given)
            if not isinstance(found, Tensor) or found.ndim != 2:
                what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                hint = "; return (n, 1), without squeeze" if what == (1,) else ""
                raise ValueError(f"it gives {what}, not (1, classes){hint}")
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
    with torch.no_grad():
        if _like_probabilities(of_output(next(iter(chosen.values()))(images[:8].clone())).float()):
            remarks.add(PROBABILITIES)
    if usual == 1:
        remarks.add(ONE_OUTPUT)
        chosen = {name: two_sided(model) for name, model in chosen.items()}
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
