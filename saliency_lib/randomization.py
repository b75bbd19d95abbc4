"""Networks whose layers are redrawn, from the logits down or one at a time (Adebayo et al. 2018).

``cascading`` and ``independent`` give copies; the network itself is never touched. What a layer gets depends on the
seed and on its place alone, so that both give a layer the same weights.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from saliency_lib.attribution.passes import device_of
from saliency_lib.randomness import LAYERS, derive, seeded

STD = 0.01  # of the paper's truncated normal draws
SIDES = (32, 28, 16, 64, 128, 224, 299)  # of the pictures that are tried where none is given
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
BLOCKS, SINGLE = "blocks", "layers"


def own_initialiser(module: nn.Module) -> None:
    """Redraw by PyTorch's initialiser of the module's kind; ValueError for a module without one."""
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    if reset is None:
        raise ValueError(
            f"{type(module).__name__} has no initialiser of its own (reset_parameters); use draw='truncated_normal', "
            "or a function that redraws it"
        )
    reset()


def truncated_normal(module: nn.Module) -> None:
    """Redraw all parameters from a normal distribution (mean 0, deviation 0.01) cut off at two deviations."""
    for p in module.parameters(recurse=False):
        nn.init.trunc_normal_(p, std=STD, a=-2 * STD, b=2 * STD)


def uniform(module: nn.Module) -> None:
    """Redraw all parameters from a uniform distribution, mean 0, deviation 0.01 (the paper does not give its range)."""
    for p in module.parameters(recurse=False):
        nn.init.uniform_(p, -STD * math.sqrt(3), STD * math.sqrt(3))


DRAWS = {"own": own_initialiser, "truncated_normal": truncated_normal, "uniform": uniform}


def _probe(model: nn.Module) -> Tensor:
    """An input that the model takes, found by trying."""
    convolution, linear = (
        next((m for m in model.modules() if isinstance(m, kind)), None) for kind in (nn.Conv2d, nn.Linear)
    )
    tries = [torch.zeros(1, convolution.in_channels, side, side) for side in SIDES] if convolution else []
    tries += [torch.zeros(1, linear.in_features)] if linear else []
    for x in tries:
        try:
            with torch.no_grad():
                model(x)
        except (RuntimeError, ValueError):
            continue
        return x
    raise ValueError(f"found no input that {type(model).__name__} takes; pass images=, a batch of one is enough")


def _calls(model: nn.Module, images: Tensor | None) -> tuple[list[str], list[str]]:
    """Modules in the order in which one pass calls them, and the parameters that its outputs depend on, by name."""
    model = copy.deepcopy(model).cpu().eval().requires_grad_(True)
    x = _probe(model) if images is None else images[:1].detach().cpu()
    called, handles = {}, []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda _module, _inputs, name=name: called.setdefault(name)))
    with torch.enable_grad():
        outputs = model(x)
    if not isinstance(outputs, Tensor):
        raise ValueError(f"the model gives {type(outputs).__name__}; expected logits (n, classes)")
    named = dict(model.named_parameters())
    gradients = torch.autograd.grad(outputs.sum(), list(named.values()), allow_unused=True) if named else ()
    return list(called), [name for name, g in zip(named, gradients) if g is not None]


def _blocks(model: nn.Module) -> list[str]:
    """The model's children; where they are fewer than four, sequences among them are opened."""
    names = [name for name, _ in model.named_children()]
    while len(names) < 4 and any(isinstance(model.get_submodule(name), nn.Sequential) for name in names):
        opened = []
        for name in names:
            module = model.get_submodule(name)
            inside = [f"{name}.{child}" for child, _ in module.named_children()]
            opened += inside if isinstance(module, nn.Sequential) else [name]
        names = opened
    return names


def layers(
    model: nn.Module, images: Tensor | None = None, parts: str | Sequence[str] = BLOCKS
) -> dict[str, tuple[str, ...]]:
    """What is redrawn together, from the logits down: its name, and the names of the modules that hold its weights.

    The order is that of one forward pass. A normalisation belongs to the layer before it; what the logits do not depend
    on, as an auxiliary classifier, is left out.

    Parameters
    ----------
    images : Tensor, optional
        (n, c, h, w), for the pass; default: a blank picture of a size that the model takes.
    parts : str or list of str
        ``"blocks"``, the model's children (for Inception v3 the paper's 17), opened where they are fewer than four;
        ``"layers"``, every module with weights of its own; or the names of modules, each with all inside it.

    Raises
    ------
    ValueError
        For unknown parts, a model without weights, or one that takes no picture and is given none.
    """
    called, used = _calls(model, images)
    known, place = dict(model.named_modules()), {name: k for k, name in enumerate(called)}
    if isinstance(parts, str):
        if parts not in (BLOCKS, SINGLE):
            raise ValueError(f"unknown parts {parts!r}; {BLOCKS!r}, {SINGLE!r} or a list of modules' names")
        roots = _blocks(model) if parts == BLOCKS else []
    elif unknown := [name for name in parts if name not in known]:
        raise ValueError(f"the model has no module {unknown[0]!r}; one of {sorted(filter(None, known))}")
    else:
        roots = list(parts)
    found, before = {}, None
    holders = dict.fromkeys(name.rpartition(".")[0] for name in used)

    def owner(holder: str) -> str:
        while holder not in place:
            holder = holder.rpartition(".")[0]
        return holder

    for holder in sorted(holders, key=lambda h: place[owner(h)]):
        root = next((r for r in roots if f"{holder}.".startswith(f"{r}.")), None)
        if root is None and not isinstance(parts, str):
            continue
        name = root or owner(holder) or type(model).__name__
        if isinstance(known[holder], NORMS) and name == holder and before and isinstance(parts, str):
            name = before
        found.setdefault(name, []).append(holder)
        before = name
    if not found:
        raise ValueError(f"{type(model).__name__} has no weights to redraw in {parts!r}")
    return {name: tuple(found[name]) for name in reversed(found)}


def _redraw(model: nn.Module, holders: Sequence[str], seed: int, draw: Callable, statistics: str) -> None:
    with seeded(seed), torch.no_grad():
        for module in map(model.get_submodule, holders):
            kept = {name: b.clone() for name, b in module.named_buffers(recurse=False)}
            draw(module)
            if statistics == "reset" and hasattr(module, "reset_running_stats"):
                module.reset_running_stats()
            elif statistics == "keep":
                for name, buffer in kept.items():
                    getattr(module, name).copy_(buffer)


def _prepared(model, seed, images, parts, draw, statistics):
    if statistics not in ("reset", "keep"):
        raise ValueError(f"unknown statistics {statistics!r}; 'reset' or 'keep'")
    if not callable(draw) and draw not in DRAWS:
        raise ValueError(f"unknown draw {draw!r}; one of {sorted(DRAWS)}, or a function of a module")
    function = draw if callable(draw) else DRAWS[draw]
    order = layers(model, images, parts)

    def redraw(copied: nn.Module, name: str) -> None:
        height = len(order) - 1 - list(order).index(name)  # counted from the input
        _redraw(copied, order[name], derive(seed, LAYERS, height), function, statistics)

    return list(order), redraw


def cascading(
    model: nn.Module,
    seed: int = 0,
    images: Tensor | None = None,
    *,
    parts: str | Sequence[str] = BLOCKS,
    draw: str | Callable[[nn.Module], None] = "own",
    statistics: str = "reset",
) -> Iterator[tuple[str, nn.Module]]:
    """Copies of the model with one more layer redrawn each, from the logits down: (the new one's name, copy).

    Adebayo et al. 2018, section 3.1. Every layer is drawn from a generator of its own, so layers of one shape differ.

    Parameters
    ----------
    images, parts
        As in :func:`layers`.
    draw : str or callable
        ``"own"``, PyTorch's initialiser of each kind of module; ``"truncated_normal"`` and ``"uniform"``, the paper's;
        or a function that changes a module in place.
    statistics : str
        Running statistics of redrawn normalisations: ``"reset"`` to mean 0 and variance 1, as in an untrained network,
        or ``"keep"``. Those of other layers stay.
    """
    order, redraw = _prepared(model, seed, images, parts, draw, statistics)

    def steps() -> Iterator[tuple[str, nn.Module]]:
        current, device = copy.deepcopy(model).cpu(), device_of(model, torch.empty(0))
        for name in order:
            redraw(current, name)
            yield name, copy.deepcopy(current).to(device)

    return steps()


def independent(
    model: nn.Module,
    seed: int = 0,
    images: Tensor | None = None,
    *,
    parts: str | Sequence[str] = BLOCKS,
    draw: str | Callable[[nn.Module], None] = "own",
    statistics: str = "reset",
) -> Iterator[tuple[str, nn.Module]]:
    """Copies of the model with one layer redrawn each, all others as trained: (its name, copy), from the logits down.

    Adebayo et al. 2018, section 3.2; parameters as in :func:`cascading`.
    """
    order, redraw = _prepared(model, seed, images, parts, draw, statistics)

    def steps() -> Iterator[tuple[str, nn.Module]]:
        device = device_of(model, torch.empty(0))
        for name in order:
            changed = copy.deepcopy(model).cpu()
            redraw(changed, name)
            yield name, changed.to(device)

    return steps()
