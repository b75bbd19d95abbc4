"""Networks whose layers are redrawn, from the logits down or one at a time (Adebayo et al. 2018).

``cascading`` and ``independent`` give copies; the network itself is never touched. What a module gets depends on the
seed and on its place in the network alone, so that both give it the same weights, however layers are grouped. Copies
share the memory of the values that they have in common, so that a step costs no more than what it draws.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from saliency_lib.hooks import bare, copied, laid_out, layout_of, probe, sharing, tensors, used_by
from saliency_lib.outputs import of_output
from saliency_lib.runtime.seeds import LAYERS, derive, seeded

STD = 0.01  # of the paper's truncated normal draws
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def own_initialiser(module: nn.Module) -> None:
    """Redraw by PyTorch's initialiser of the module's kind; ValueError for a module that has none for its weights."""
    own = list(module.parameters(recurse=False))
    with torch.no_grad():
        for p in own:
            p.fill_(math.nan)
    if reset := getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None):
        reset()
    if any(p.sum().isnan() for p in own):
        raise ValueError(
            f"{type(module).__name__} has no initialiser of its own (reset_parameters) for all of its weights; use "
            "draw='truncated_normal', or a function that redraws it"
        )


def truncated_normal(module: nn.Module) -> None:
    """Redraw all parameters from a normal distribution (mean 0, deviation 0.01) cut off at two deviations."""
    for p in module.parameters(recurse=False):
        nn.init.trunc_normal_(p, std=STD, a=-2 * STD, b=2 * STD)


def uniform(module: nn.Module) -> None:
    """Redraw all parameters from a uniform distribution, mean 0, deviation 0.01 (the paper does not give its range)."""
    for p in module.parameters(recurse=False):
        nn.init.uniform_(p, -STD * math.sqrt(3), STD * math.sqrt(3))


DRAWS = {"own": own_initialiser, "truncated_normal": truncated_normal, "uniform": uniform}
Draw = str | nn.Module | Callable[[nn.Module], None]


def _take(fresh: nn.Module, module: nn.Module) -> None:
    """Give a module the weights of another one of its kind."""
    for p, new in zip(module.parameters(recurse=False), fresh.parameters(recurse=False)):
        p.copy_(new)


def _drawing(draw: Draw, model: nn.Module) -> Callable[[str], Callable[[nn.Module], None]]:
    """What redraws a module of the model, by the module's name; ValueError for a draw that cannot."""
    if isinstance(draw, nn.Module):
        ours, theirs = ({name: p.shape for name, p in net.named_parameters()} for net in (model, draw))
        if ours != theirs:
            raise ValueError("the network to take weights from has others than the model; build it in the same way")
        fresh = draw
        return lambda name: partial(_take, fresh.get_submodule(name))
    if isinstance(draw, str):
        if draw not in DRAWS:
            raise ValueError(f"unknown draw {draw!r}; one of {sorted(DRAWS)}, a network or a function of a module")
        draw = DRAWS[draw]
    function = draw
    return lambda name: function


def _calls(model: nn.Module, images: Tensor | None) -> tuple[list[str], list[str]]:
    """Modules in the order in which one pass calls them, and the parameters that its logits depend on, by name; without
    what another output alone depends on, as a second head."""
    model = bare(model).cpu()
    named = {name: p.requires_grad_(True) for name, p in model.named_parameters() if p.is_floating_point()}
    called = {}
    with seeded(0), torch.enable_grad():
        x = probe(model) if images is None else images[:1].detach().cpu()
        for name, module in model.named_modules():
            module.register_forward_pre_hook(lambda _module, _inputs, name=name: called.setdefault(name))
        outputs = model(x)
    if not isinstance(logits := of_output(outputs), Tensor):
        raise ValueError(f"the model gives {type(logits).__name__}; expected logits (n, classes)")
    used, by_any = (used_by(results, named) for results in ([logits], tensors(outputs)))
    beside = {name.rpartition(".")[0] for name in by_any} - {name.rpartition(".")[0] for name in used}
    for name in named:
        holder = name.rpartition(".")[0]
        if name not in used and holder in called and holder not in beside:
            raise ValueError(
                f"the pass calls {holder or type(model).__name__!r}, but by autograd the logits do not depend on its "
                f"{name.rpartition('.')[2]}; is it under no_grad, detached, or without use?"
            )
    return [name for name in called if name not in beside], [name for name in named if name in used]


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
    model: nn.Module, images: Tensor | None = None, only: Sequence[str] | None = None
) -> dict[str, tuple[str, ...]]:
    """What is redrawn together, from the logits down: its name, and the names of the modules that hold its weights.

    The order is that of one forward pass. A normalisation belongs to the layer before it; what the pass does not use,
    as an auxiliary classifier, is left out. Weights of the model itself go by the name of its class.

    Parameters
    ----------
    images : Tensor, optional
        (n, c, h, w), for the pass; default: a blank picture of a size that the model takes.
    only : list of str, optional
        Names of modules to redraw, each with all inside it; default: the model's children (for Inception v3 the
        paper's 17 blocks), opened where they are fewer than four.

    Raises
    ------
    ValueError
        For modules without weights, tied weights, a model whose pass hides from autograd what it uses, or one that
        takes no picture and is given none.
    """
    called, used = _calls(model, images)
    known, place = dict(model.named_modules()), {name: k for k, name in enumerate(called)}
    first = {}
    for module, inside in known.items():  # each once, also one that goes by two names
        for key, p in inside.named_parameters(recurse=False, remove_duplicate=False):
            name = f"{module}.{key}".lstrip(".")
            if first.setdefault(id(p), name) != name:
                raise ValueError(f"{first[id(p)]!r} and {name!r} are one tensor, which no layer has alone; untie them")

    def owner(holder: str) -> str:
        """Itself, or the module above it that uses its weights without a call, as attention those of its layers."""
        above = holder
        while above not in place:
            above = above.rpartition(".")[0]
        if holder and not above:
            raise ValueError(f"the pass uses weights of {holder!r} without calling it; its place is unknown")
        return above

    normal = [name for name in called if getattr(known[name], "running_mean", None) is not None]
    holders = dict.fromkeys([name.rpartition(".")[0] for name in used] + normal)
    holders = sorted(holders, key=lambda h: (place[owner(h)], -h.count(".")))
    roots = _blocks(model, holders) if only is None else only
    found = {}
    for holder in holders:
        root = next((r for r in roots if f"{holder}.".startswith(f"{r}.")), None)
        if root is None and only is not None:
            continue
        name = root or owner(holder) or type(model).__name__
        if only is None and isinstance(known[holder], NORMS) and name == holder and found:
            name = list(found)[-1]  # a normalisation goes with the layer before it
        found.setdefault(name, []).append(holder)
    if empty := [name for name in only or () if name not in found] or ([] if found else [type(model).__name__]):
        raise ValueError(f"{empty[0]!r} has no weights to redraw that no other has; weights are in {holders}")
    return {name: tuple(found[name]) for name in reversed(found)}


def _redraw(module: nn.Module, seed: int, draw: Callable[[nn.Module], None], keep_statistics: bool, layout) -> None:
    """Give a module new weights on memory of their own in a layout, drawn on the CPU."""
    drawn, device = copy.deepcopy(module), next((t.device for t in (*module.parameters(), *module.buffers())), "cpu")
    drawn.to("cpu").to(memory_format=torch.contiguous_format)  # draws come in the order of memory
    with seeded(seed), torch.no_grad():
        draw(drawn)
        if reset := getattr(drawn, "reset_running_stats", None):
            reset()
            for name, statistic in module.named_buffers(recurse=False) if keep_statistics else ():
                getattr(drawn, name).copy_(statistic)
    for name, inside in laid_out(drawn.to(device), layout).named_modules():
        for key, tensor in (*inside.named_parameters(recurse=False), *inside.named_buffers(recurse=False)):
            setattr(module.get_submodule(name), key, tensor)


def _copies(model, seed, images, only, draw, keep_statistics, cascade: bool) -> Iterator[tuple[str, nn.Module]]:
    """Copies with one more layer redrawn each, or only one unless ``cascade``."""
    layout = layout_of(model, images)
    original = laid_out(copied(model), layout)
    order = layers(original, images, only)
    numbers = {name: k for k, (name, _) in enumerate(original.named_modules())}
    seeds = {holder: derive(seed, LAYERS, numbers[holder]) for holders in order.values() for holder in holders}
    drawing = _drawing(draw, original)

    def redrawn() -> Iterator[tuple[str, nn.Module]]:
        current = original
        for name, holders in order.items():
            current = sharing(current if cascade else original)
            for holder in holders:
                _redraw(current.get_submodule(holder), seeds[holder], drawing(holder), keep_statistics, layout)
            yield name, current

    return redrawn()


def cascading(
    model: nn.Module,
    seed: int = 0,
    images: Tensor | None = None,
    *,
    only: Sequence[str] | None = None,
    draw: Draw = "own",
    keep_statistics: bool = False,
) -> Iterator[tuple[str, nn.Module]]:
    """Copies of the model with one more layer redrawn each, from the logits down: (the new one's name, copy).

    Adebayo et al. 2018, section 3.1. Every module is drawn from a generator of its own, so layers of one shape differ.
    Copies may be moved and their hooks, modes and gradients are their own; take ``copy.deepcopy`` of one to train it,
    since the values of what is not redrawn are those of other copies too.

    Parameters
    ----------
    images, only
        As in :func:`layers`.
    draw : str, Module or callable
        ``"own"``, PyTorch's initialiser of each kind of module, which is not always what a network was built with; a
        freshly built network of the same kind, whose weights are taken; ``"truncated_normal"`` and ``"uniform"``, the
        paper's; or a function that changes a module in place.
    keep_statistics : bool
        Leave the running statistics of redrawn normalisations; default: mean 0 and variance 1, as in an untrained
        network. Those of other layers stay.
    """
    return _copies(model, seed, images, only, draw, keep_statistics, cascade=True)


def independent(
    model: nn.Module,
    seed: int = 0,
    images: Tensor | None = None,
    *,
    only: Sequence[str] | None = None,
    draw: Draw = "own",
    keep_statistics: bool = False,
) -> Iterator[tuple[str, nn.Module]]:
    """Copies of the model with one layer redrawn each, all others as trained: (its name, copy), from the logits down.

    Adebayo et al. 2018, section 3.2; parameters as in :func:`cascading`.
    """
    return _copies(model, seed, images, only, draw, keep_statistics, cascade=False)
