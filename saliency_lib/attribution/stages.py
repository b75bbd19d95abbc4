"""Which layers close a stage, found by one pass: the last output of each resolution on the way to the prediction."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from saliency_lib.attribution.grids import POINTWISE, Grid, first_of, grid_of
from saliency_lib.hooks import SIDES, bare, channels_of, hooked, known
from saliency_lib.outputs import of_output
from saliency_lib.runtime.seeds import seeded

FIRST_LARGE = (224, 256, 128, 64, *sorted(SIDES))  # small ones leave one resolution, but are soon tried
POOLS = (
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.LPPool2d, nn.FractionalMaxPool2d,
    nn.AvgPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d, nn.Flatten,
)  # fmt: skip
PASSING = (nn.Identity, nn.Dropout)  # which hand on what they are given
NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d)


@dataclass(eq=False)
class _Value:
    """A tensor that modules gave, as a grid of places, and the modules that gave it, innermost first."""

    tensor: Tensor
    grid: Grid
    names: list[str] = field(default_factory=list)
    reached: bool = True  # a change of its places changes the logits


def stages(model: nn.Module) -> list[str]:
    """Names of the layers that close a stage, lowest first; empty for a network without any.

    The model's own ``stages`` if it lists names of modules; the residual stages ``layer1`` to ``layer4``, where these
    are four and hold convolutions; else what a pass shows: of every resolution the last output before pooling on which
    the logits depend, (n, c, h, w), (n, h, w, c) or tokens (n, t, c), normalisations after it left aside; in a network
    of one resolution, what comes last before every convolution and at the end.
    """
    named = dict(model.named_modules())
    own = getattr(model, "stages", ())
    if isinstance(own, (list, tuple)) and own and all(isinstance(name, str) and name in named for name in own):
        return list(own)
    residual = [f"layer{k}" for k in range(1, 5)]
    if all(name in named and channels_of(named[name]) for name in residual) and "layer5" not in named:
        return residual
    seen, parts = known(model).setdefault("stages", {}), tuple((name, type(module)) for name, module in named.items())
    if not seen.get(parts):
        seen[parts] = _traced(model)
    return list(seen[parts])


def _inputs(model: nn.Module) -> Iterator[Tensor]:
    """Two pictures that the model may take, drawn always alike: blank ones may leave every ReLU at zero, and two tell
    what is of a picture from what is of a window of it."""
    like = next(model.parameters(), torch.empty(0))
    for channels in channels_of(model):
        for side in FIRST_LARGE:
            yield torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0)).to(like)
    if shape := known(model).get("shape"):  # of pictures that it was given
        yield torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).to(like)


def _traced(model: nn.Module) -> list[str]:
    looked_at = bare(model)
    for images in _inputs(model):
        values: list[_Value] = []
        before: list[int] = []  # how many values there were when each convolution gave its own
        ends: set[str] = set()  # modules that give tokens of no place alone
        try:
            with (
                torch.enable_grad(),
                seeded(0),
                hooked(looked_at.modules(), _noting(looked_at, images, values, before, ends)),
            ):
                logits = of_output(looked_at(images.requires_grad_().clone()))
        except (RuntimeError, ValueError, AssertionError, IndexError):
            continue
        if isinstance(logits, Tensor) and logits.ndim == 2 and values:
            _mark(values, logits)
            return _closing(looked_at, values, before, ends)
    return []


def _noting(model: nn.Module, images: Tensor, values: list[_Value], before: list[int], ends: set[str]):
    names = {module: name for name, module in model.named_modules()}

    def note(module: nn.Module, inputs, out) -> None:
        out = first_of(out)
        if module is model or not isinstance(out, Tensor) or not out.requires_grad or len(out) != len(images):
            return
        given = next((v.grid for v in reversed(values) if inputs and v.tensor is inputs[0]), None)
        alike = isinstance(module, POINTWISE) and given is not None  # as a ReLU of a convolution's output
        grid = given if alike else grid_of(out, images, module)
        tokens = {value.tensor.shape[1] for value in values if value.grid.kind == "tokens"}
        if grid is None or (out.ndim == 4 and grid.shape[0] == grid.shape[1] in tokens):  # the latter is attention
            if out.ndim == 3:
                ends.add(names[module])
            return
        if not values or values[-1].tensor is not out:
            values.append(_Value(out, grid))
        elif isinstance(module, PASSING):
            return
        values[-1].names.append(names[module])
        if isinstance(module, nn.Conv2d):
            before.append(len(values) - 1)

    return note


def _mark(values: list[_Value], logits: Tensor) -> None:
    """Whether the logits depend on the places of each value, by the gradient of a random mixture of the logits."""
    mixture = logits @ torch.randn(logits.shape[1], generator=torch.Generator().manual_seed(0)).to(logits)
    gradients = torch.autograd.grad(mixture.sum(), [value.tensor for value in values], allow_unused=True)
    for value, gradient in zip(values, gradients):
        if gradient is None:
            value.reached = False
        elif gradient.device.type != "meta":
            value.reached = bool(value.grid.maps(gradient).any())


def _closing(model: nn.Module, values: list[_Value], before: list[int], ends: set[str]) -> list[str]:
    """The last usable value of each resolution, or before each convolution where there is one resolution only."""
    times = Counter(name for value in values for name in value.names)
    for value in values:  # what is called repeatedly is no place of its own
        value.names = [name for name in value.names if times[name] == 1]
    pooled = {id(v) for v in values if any(isinstance(model.get_submodule(name), POOLS) for name in v.names)}
    reached = [v for v in values if v.reached and v.names]
    usable = [v for v in reached if id(v) not in pooled]
    wide = [v for v in usable if min(v.grid.shape) > 1] or usable
    wide = [v for v in wide if not _only_norms(model, v)]
    ends = ends | {name for v in values if not v.reached for name in v.names}
    wide = wide and _before_block(wide, reached, ends)
    found: dict[tuple[int, int], str] = {}
    for value in wide:  # what closes a block goes before what is inside the next one, but at the end the last counts
        name, known = _named(value, values), found.get(value.grid.shape)
        if known is None or value is wide[-1] or name.count(".") <= known.count("."):
            found[value.grid.shape] = name
    if len(found) == 1:
        last = [next((v for v in reversed(values[:k]) if v in wide), None) for k in before[1:]]
        return list(dict.fromkeys([*(_named(v, values) for v in last if v), *found.values()]))
    return [found[shape] for shape in sorted(found, key=lambda shape: -shape[0] * shape[1])]


def _before_block(wide: list[_Value], reached: list[_Value], ends: set[str]) -> list[_Value]:
    """The values up to the last, or to what comes before its block where nothing of the last goes out of it.

    So it is in a network that predicts from its class token: in its last block, places are keys and values only.
    """
    last = wide[-1]
    if last.names[-1].count(".") < last.names[0].count(".") and last.names[-1] not in ends:
        return wide  # a whole block gave it
    parts = last.names[0].split(".")
    blocks = [".".join(parts[:k]) for k in range(len(parts) - 1, 0, -1)]  # from the inside
    inside = next((k for k, block in enumerate(blocks) if block in ends), len(blocks))
    goes_on = any(_within(v, block) for block in blocks[inside:][:1] for v in reached[reached.index(last) + 1 :])
    for alike in (lambda v: v.grid == last.grid, lambda v: v.grid.shape == last.grid.shape):
        for block in () if goes_on else blocks[inside:]:
            beside = [v for v in wide[:-1] if alike(v) and _within(v, block.rpartition(".")[0])]
            if beside := [v for v in beside if not _within(v, block)]:
                return _before_block(wide[: wide.index(beside[-1]) + 1], reached, ends)
    return wide


def _within(value: _Value, block: str) -> bool:
    """Whether a module in the block, or the block itself, gave the value; all lie in the model itself, ``""``."""
    return not block or f"{value.names[0]}.".startswith(f"{block}.")


def _only_norms(model: nn.Module, value: _Value) -> bool:
    """Whether nothing but a normalisation, a dropout or a change of layout gave the value."""
    modules = [model.get_submodule(name) for name in value.names]
    kinds = (*NORMS, *PASSING)
    return all(isinstance(m, kinds) or type(m).__name__.startswith(("Permute", "LayerNorm")) for m in modules)


def _named(value: _Value, values: list[_Value]) -> str:
    """The outermost of the value's modules that holds no value of another resolution."""

    def of_one_resolution(name: str) -> bool:
        inside = [v for v in values if any(n == name or n.startswith(f"{name}.") for n in v.names)]
        return all(v.grid.shape in (value.grid.shape, (1, 1)) for v in inside)

    return next((name for name in reversed(value.names) if of_one_resolution(name)), value.names[0])
