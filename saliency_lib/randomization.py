"""Networks whose layers are redrawn, from the logits down or one at a time (Adebayo et al. 2018).

``cascading`` and ``independent`` give copies; the network itself is never touched. What a module gets depends on the
seed and on its place in the network alone, so that both give it the same weights, however layers are grouped. Copies
share the memory of the values that they have in common, so that a step costs no more than what it draws.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from saliency_lib.hooks import bare, probe, sharing
from saliency_lib.runtime.seeds import LAYERS, derive, seeded

STD = 0.01  # of the paper's truncated normal draws
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
BLOCKS, SINGLE = "blocks", "layers"


def own_initialiser(module: nn.Module) -> None:
    """Redraw by PyTorch's initialiser of the module's kind; ValueError for a module that has none for its weights."""
    reset = _initialiser(module)
    if reset is not None:
        own = dict(module.named_parameters(recurse=False))
        with torch.no_grad():
            for p in own.values():
                p.fill_(math.nan)
        reset()
    if reset is None or any(p.sum().isnan() for p in own.values()):
        raise ValueError(
            f"{type(module).__name__} has no initialiser of its own (reset_parameters) for all of its weights; use "
            "draw='truncated_normal', or a function that redraws it"
        )


def _initialiser(module: nn.Module) -> Callable | None:
    return getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)


def truncated_normal(module: nn.Module) -> None:
    """Redraw all parameters from a normal distribution (mean 0, deviation 0.01) cut off at two deviations."""
    for p in module.parameters(recurse=False):
        nn.init.trunc_normal_(p, std=STD, a=-2 * STD, b=2 * STD)


def uniform(module: nn.Module) -> None:
    """Redraw all parameters from a uniform distribution, mean 0, deviation 0.01 (the paper does not give its range)."""
    for p in module.parameters(recurse=False):
        nn.init.uniform_(p, -STD * math.sqrt(3), STD * math.sqrt(3))


DRAWS = {"own": own_initialiser, "truncated_normal": truncated_normal, "uniform": uniform}


def _calls(model: nn.Module, images: Tensor | None) -> tuple[list[str], list[str]]:
    """Modules in the order in which one pass calls them, and the parameters that its outputs depend on, by name."""
    model = bare(model).cpu()
    named = {name: p.requires_grad_(True) for name, p in model.named_parameters() if p.is_floating_point()}
    called = {}
    with seeded(0), torch.enable_grad():
        x = probe(model) if images is None else images[:1].detach().cpu()
        for name, module in model.named_modules():
            module.register_forward_pre_hook(lambda _module, _inputs, name=name: called.setdefault(name))
        outputs = model(x)
    if not isinstance(outputs, Tensor):
        raise ValueError(f"the model gives {type(outputs).__name__}; expected logits (n, classes)")
    gradients = [None] * len(named)
    if named and outputs.requires_grad:
        gradients = torch.autograd.grad(outputs.sum(), list(named.values()), allow_unused=True)
    used = [name for name, g in zip(named, gradients) if g is not None]
    for name in named:
        holder = name.rpartition(".")[0]
        if name not in used and holder in called:
            raise ValueError(
                f"the pass calls {holder or type(model).__name__!r}, but by autograd the logits do not depend on its "
                f"{name.rpartition('.')[2]}; is it under no_grad, detached, or without use?"
            )
    return list(called), used


def _blocks(model: nn.Module, holders: Sequence[str]) -> list[str]:
    """The model's children with weights; while fewer than four, sequences among them, or an only one, are opened."""
    names = [name for name, _ in model.named_children()]
    while True:
        names = [name for name in names if any(f"{holder}.".startswith(f"{name}.") for holder in holders)]
        inside = {
            name: [f"{name}.{child}" for child, _ in model.get_submodule(name).named_children()] for name in names
        }
        rows = (nn.Sequential, nn.ModuleList)
        opened = {n for n in names if inside[n] and (len(names) == 1 or isinstance(model.get_submodule(n), rows))}
        if len(names) > 3 or not opened:
            return names
        names = [new for name in names for new in (inside[name] if name in opened else [name])]


def layers(
    model: nn.Module, images: Tensor | None = None, parts: str | Sequence[str] = BLOCKS
) -> dict[str, tuple[str, ...]]:
    """What is redrawn together, from the logits down: its name, and the names of the modules that hold its weights.

    The order is that of one forward pass. A normalisation belongs to the layer before it; what the pass does not use,
    as an auxiliary classifier, is left out. Weights of the model itself go by the name of its class.

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
        For unknown parts or some without weights, tied weights, a model whose pass hides from autograd what it uses, or
        one that takes no picture and is given none.
    """
    called, used = _calls(model, images)
    known, place = dict(model.named_modules()), {name: k for k, name in enumerate(called)}
    by_id = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        if by_id.setdefault(id(p), name) != name:
            raise ValueError(
                f"{by_id[id(p)]!r} and {name!r} are one tensor, which no layer can be given alone; untie them"
            )

    def owner(holder: str) -> str:
        above = holder.rpartition(".")[0]
        if holder in place:
            return holder
        if isinstance(known[above], nn.MultiheadAttention):  # uses its output layer's weights without a call
            return above
        raise ValueError(f"the pass uses weights of {holder!r} without calling it; its place is unknown")

    statistics = [
        n for n in called if isinstance(known[n], NORMS) and getattr(known[n], "running_mean", None) is not None
    ]
    holders = dict.fromkeys([name.rpartition(".")[0] for name in used] + statistics)
    holders = sorted(holders, key=lambda h: (place[owner(h)], -h.count(".")))
    named = not isinstance(parts, str)
    if not named and parts not in (BLOCKS, SINGLE):
        raise ValueError(f"unknown parts {parts!r}; {BLOCKS!r}, {SINGLE!r} or a list of modules' names")
    roots = list(parts) if named else _blocks(model, holders) if parts == BLOCKS else []
    found = {}
    for holder in holders:
        root = next((r for r in roots if f"{holder}.".startswith(f"{r}.")), None)
        if named and root is None:
            continue
        name = root or owner(holder) or type(model).__name__
        if not named and isinstance(known[holder], NORMS) and name == holder and found:
            name = list(found)[-1]  # a normalisation goes with the layer before it
        found.setdefault(name, []).append(holder)
    if empty := [name for name in roots if name not in found and named] or ([] if found else [parts]):
        known_names = sorted(filter(None, holders))
        raise ValueError(f"{empty[0]!r} has no weights to redraw that no other part has; weights are in {known_names}")
    return {name: tuple(found[name]) for name in reversed(found)}


def _channels_last(module: nn.Module) -> nn.Module:
    """The module, its two-dimensional kernels in the memory layout in which the methods send pictures."""
    for p in module.parameters():
        if p.ndim == 4:
            p.data = p.data.contiguous(memory_format=torch.channels_last)
    return module


def _redraw(module: nn.Module, seed: int, draw: Callable[[nn.Module], None], statistics: str) -> None:
    """Give a module new weights on memory of their own, drawn on the CPU."""
    drawn, device = copy.deepcopy(module), next((t.device for t in (*module.parameters(), *module.buffers())), "cpu")
    drawn.to("cpu", memory_format=torch.contiguous_format)  # draws come in the order of memory
    kept = {name: b.clone() for name, b in drawn.named_buffers(recurse=False)}
    with seeded(seed), torch.no_grad():
        draw(drawn)
        if hasattr(drawn, "reset_running_stats"):
            drawn.reset_running_stats()
            for name, buffer in kept.items() if statistics == "keep" else ():
                getattr(drawn, name).copy_(buffer)
    for name, inside in _channels_last(drawn.to(device)).named_modules():
        for key, tensor in (*inside.named_parameters(recurse=False), *inside.named_buffers(recurse=False)):
            setattr(module.get_submodule(name), key, tensor)


def _steps(model, seed, images, parts, draw, statistics, keep: bool) -> Iterator[tuple[str, nn.Module]]:
    """Copies with one more layer redrawn each, or only one unless ``keep``; errors come with the call."""
    if statistics not in ("reset", "keep"):
        raise ValueError(f"unknown statistics {statistics!r}; 'reset' or 'keep'")
    if not callable(draw) and draw not in list(DRAWS):
        raise ValueError(f"unknown draw {draw!r}; one of {sorted(DRAWS)}, or a function of a module")
    original = _channels_last(copy.deepcopy(model))
    order = layers(original, images, parts)
    numbers = {name: k for k, (name, _) in enumerate(original.named_modules())}
    seeds = {holder: derive(seed, LAYERS, numbers[holder]) for holders in order.values() for holder in holders}
    for holder in seeds if draw == "own" else ():
        if _initialiser(original.get_submodule(holder)) is None:
            own_initialiser(original.get_submodule(holder))
    function = draw if callable(draw) else DRAWS[draw]

    def copies() -> Iterator[tuple[str, nn.Module]]:
        current = original
        for name, holders in order.items():
            current = sharing(current if keep else original)
            for holder in holders:
                _redraw(current.get_submodule(holder), seeds[holder], function, statistics)
            yield name, current

    return copies()


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

    Adebayo et al. 2018, section 3.1. Every module is drawn from a generator of its own, so layers of one shape differ.
    Copies may be moved and their hooks, modes and gradients are their own; take ``copy.deepcopy`` of one to train it,
    since the values of what is not redrawn are those of other copies too.

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
    return _steps(model, seed, images, parts, draw, statistics, keep=True)


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
    return _steps(model, seed, images, parts, draw, statistics, keep=False)
